"""What the reader of compiled programs sees, on a program small enough to read."""

from accelerators.hlo import in_loops

PROGRAM = """\
%inner (p: bf16[4,3]) -> f32[4,3] {
  %p = bf16[4,3]{1,0} parameter(0)
  ROOT %c = f32[4,3]{1,0:T(8,128)} convert(%p)
}

%chosen (q: f32[2]) -> f32[2] {
  %q = f32[2]{0} parameter(0)
  ROOT %r = (f32[2]{0}, f32[2]{0}, u32[]) copy-start(%q)
}

%body (state: (f32[5], pred[])) -> (f32[5], pred[]) {
  %f = f32[4,3]{1,0} fusion(%w), kind=kLoop, calls=%inner
  %b = f32[2]{0} conditional(%i, %q, %q), branch_computations={%chosen, %chosen}
  ROOT %t = (f32[5]{0}, pred[]) tuple(%g, %u)
}

%condition (state: (f32[5], pred[])) -> pred[] {
  ROOT %again = pred[] all-reduce(%state), to_apply=%any
}

%any (a: pred[], b: pred[]) -> pred[] {
  ROOT %or = pred[] or(%a, %b)
}

ENTRY %main (x: f32[5]) -> f32[5] {
  %before = f32[5]{0} copy(%x)
  ROOT %while = (f32[5]{0}, pred[]) while(%start), condition=%condition, body=%body
}
"""


def test_loops_hold_their_bodies_conditions_and_all_that_these_call():
    found = {one.opcode: one.sizes for one in in_loops(PROGRAM)}
    expected = {"convert": (12,), "copy-start": (2, 2, 1), "all-reduce": (1,), "or": (1,)}
    assert expected.items() <= found.items()


def test_what_happens_outside_of_loops_is_left_out():
    assert "copy" not in {one.opcode for one in in_loops(PROGRAM)}
