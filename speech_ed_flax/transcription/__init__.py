"""Recordings in, text out, through any recogniser of batches; knows no model and no JAX."""

from speech_ed_flax.transcription.judgement import Thresholds as Thresholds
from speech_ed_flax.transcription.listening import Job as Job
from speech_ed_flax.transcription.listening import Listening as Listening
from speech_ed_flax.transcription.listening import plan_buckets as plan_buckets
from speech_ed_flax.transcription.preparation import prepare as prepare
from speech_ed_flax.transcription.transcriber import Transcriber as Transcriber
from speech_ed_flax.transcription.transcript import Segment as Segment
from speech_ed_flax.transcription.transcript import Transcript as Transcript
from speech_ed_flax.transcription.transcript import Word as Word
