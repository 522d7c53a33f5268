"""What kernels know of a format goes through an operator's argument as text."""

import pytest

from graphquant.quant_core.formats import NVFP4, Code4, IntN
from graphquant.quant_core.kernels.coding import Coding, coding_of
from lab.formats import EACH_KIND

CODINGS = [fmt.coding for fmt in EACH_KIND if fmt.coding is not None]


@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_a_coding_is_the_same_after_its_text(coding):
    again = coding_of(coding.to_text())
    assert again == coding and hash(again) == hash(coding)


def test_tables_are_kept_to_the_last_bit():
    coding = Code4("nf4", double_quant=True).coding
    again = coding_of(coding.to_text())
    assert again.table == coding.table and len(again.scale_table) == 256
    assert again.scale_table == coding.scale_table


def test_formats_that_kernels_must_tell_apart_have_texts_of_their_own():
    different = [IntN(3, 32), IntN(3, 64), IntN(5, 32), Code4("nf4"), Code4("fp4"), NVFP4()]
    assert len({fmt.coding.to_text() for fmt in different}) == len(different)
    assert Coding() == coding_of("{}")
