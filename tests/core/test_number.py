"""One reader of numbers: every spelling gives one canonical form, or a reason that is true."""

import string

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.message import spellings, to_e164
from dispatcher.core.number import (
    DoubtfulNumber,
    ReadNumber,
    fits_mask,
    forms_in_request,
    is_masked,
    possible_forms,
    read_number,
    without_numbers,
)

MOBILE = "+8613112345678"

READ = [
    ("+86 131 1234 5678", MOBILE),
    ("131-1234-5678", MOBILE),
    ("(+86)13112345678", MOBILE),
    ("(86) 131 1234 5678", MOBILE),
    ("131.1234.5678", MOBILE),
    ("+86 (0)13112345678", MOBILE),
    ("tel:+8613112345678", MOBILE),
    ("Tel: 131 1234 5678", MOBILE),
    ("131\u20111234\u20135678", MOBILE),  # a hyphen that does not break, and a dash
    ("86-13112345678", MOBILE),
    ("\u202a+8613112345678\u202c", MOBILE),  # direction marks, as pasted from a contact
    ("13112345678\u200b", MOBILE),
    ("\ufeff13112345678", MOBILE),
    ("\xa0+86\xa0131\xa01234\xa05678\u3000", MOBILE),
    ("+\ufe0d8613112345678", MOBILE),
    ("１３１１２３４５６７８", MOBILE),
    ("＋８６１３１１２３４５６７８", MOBILE),
    ("'13112345678", MOBILE),
    ("’13112345678", MOBILE),
    ("`13112345678", MOBILE),
    ('="13112345678"', MOBILE),
    ('"13112345678"', MOBILE),
    ("13112345678.0", MOBILE),
    ("8613112345678.00", MOBILE),
    ("+861311234.0000", "+8613112340000"),
    ("008613112345678", MOBILE),
    ("00 86 13112345678", MOBILE),
    ("86 13112345678", MOBILE),
    ("0044 7700 900123", "+447700900123"),
    ("+44 (20) 7946-0958", "+442079460958"),
    ("+86 10 1234 5678", "+861012345678"),
    ("+86 (0755) 1234 5678", None),  # the 0 is part of what stands in brackets
    ("+86 1064 9123 45678", "+861064912345678"),
    ("+15005550001", "+15005550001"),
    ("13112345678。", MOBILE),
    ("13112345678...", MOBILE),
    ("131 1234 5678.0", MOBILE),
    ("<+8613112345678>", MOBILE),
    ("【13112345678】", MOBILE),
    ("131ー1234ー5678", MOBILE),
    ("手机：13112345678", MOBILE),
    ("联系电话 +86 131 1234 5678", MOBILE),
    ("Mobile 13112345678", MOBILE),
    ("١٣١١٢٣٤٥٦٧٨", MOBILE),
    ("+39 06 1234 5678", "+390612345678"),  # this 0 is a part of the number
    ("00852 9123 4567", "+85291234567"),
    ("+853 6612 3456", "+85366123456"),
    ("+886 912 345 678", "+886912345678"),
    ("+886 2 1234 5678", "+886212345678"),
    ("+82 2 312 3456", "+8223123456"),
    ("+49 351 1234567-8", "+4935112345678"),  # a part of the number, not an extension
    ("+33-1-23-45-67-89", "+33123456789"),
    ("+86-131-1234-5678", MOBILE),
    ("(131) 1234-5678", MOBILE),
    ("+86 (131) 1234-5678", MOBILE),
    ("131 1234 5678", MOBILE),
    ("1-31-1234-5678", MOBILE),
    ("1 31 1234 5678", MOBILE),
    ("1 3112345678", MOBILE),
    ("1(31)1234-5678", MOBILE),
    ("+86 1 311 234 5678", MOBILE),
    ("+86-10-1234-5678", "+861012345678"),
    ("+86 10 6655-7788", "+861066557788"),
    ("+86-755-123-4567", "+867551234567"),
    ("+86-755-1234-5678", "+8675512345678"),
    ("+86-10649-1234-5678", "+861064912345678"),
    ("+86 1064-91234-5678", "+861064912345678"),
    ("+86 149-12345-67890", "+861491234567890"),
    ("+86 851 8123 4567", "+8685181234567"),  # beside 852
    ("+86 854 812 3456", "+868548123456"),
    ("+86 662 312 3456", "+866623123456"),  # beside 65
    ("+86 635 812 3456", "+866358123456"),
    ("+1 305 555 0123", "+13055550123"),
    ("(+1) 305-555-0123", "+13055550123"),
    ("001 (305) 555-0123", "+13055550123"),
    ("+1 312 345 6789", "+13123456789"),
    ("+1 800 555 0100", "+18005550100"),
]

DOUBTFUL = [
    ("", "empty"),
    (" \u200b", "empty"),
    ("8.61311E+12", "rounded"),
    ("1.31e10", "rounded"),
    ("1311234567.8", "it has decimals"),
    ("+8613112345.678", "it has decimals"),
    ("-13112345592", "it is negative"),  # +86-13112345678, calculated
    ("\u221213112345592.00", "it is negative"),
    ("13112345678,13112345679", "two numbers"),
    ("13112345678/13112345679", "two numbers"),
    ("13112345678 13112345679", "two numbers"),
    ("13112345678\n13112345679", "two numbers"),
    ("13112345678\\13112345679", "two numbers"),
    ("13112345678&13112345679", "two numbers"),
    ("131-1234-5678 or 131-1234-5679", "two numbers"),
    ("13112345678或13112345679", "two numbers"),
    ("13112345678+13112345679", "two numbers"),
    ("021-60000001/60000002", "two numbers"),
    ("#N/A", "letters"),
    ("13,112,345,678", "put commas into it"),
    ("13112345678 ext 12", "an extension"),
    ("tel:+86-131-1234-5678;ext=12", "an extension"),
    ("13112345678,,12", "an extension"),
    ("13112345678x12", "an extension"),
    ("0755-12345678-801", "an extension"),
    ("0755-12345678转801", "an extension"),
    ("010-66557788-801", "an extension"),
    ("010-6655-7788-801", "an extension"),
    ("(010) 6655 7788 - 801", "an extension"),
    ("021-1234567-8", "an extension"),
    ("+86-10-66557788-801", "an extension"),
    ("+86 (10) 6655 7788 - 801", "an extension"),
    ("+86 (010) 66557788-801", "an extension"),
    ("+86 (0)10 6491 2345-801", "an extension"),
    ("+86 10 64912345(801)", "an extension"),
    ("0086-10-66557788-123", "an extension"),
    ("86-10-66557788-1", "an extension"),
    ("+86-755-1234567-8", "an extension"),
    ("+86 147-1234-5678-12", "an extension"),
    ("147-1234-5678-12", "an extension"),
    ("13112345678-1", "an extension"),
    ("+86 10 66557788 801", "no number of mainland China has 13 digits"),
    ("013112345678", "a 0 in front: leave that out"),
    ("0116502530000", "begins with 0"),
    ("000 86 13112345678", "three zeros"),
    ("0123", "too short: 4 digits"),
    ("+44 020 7946 0958", "after +44 it has what is dialled within the country only"),
    ("+886 0912 345 678", "after +886 it has what is dialled within the country only"),
    ("10086", "a service number"),
    ("95588", "a service number"),
    ("10690000123", "a service number"),
    ("400-800-1234", "a service number"),
    ("800 810 1234", "a service number"),
    ("1069012345678", "a service number"),
    ("+86 400-800-1234", "a service number"),
    ("0086 400 800 1234", "a service number"),
    ("86 400 800 1234", "a service number"),
    ("+86 800-820-1234", "a service number"),
    ("+86 95588", "a service number"),
    ("+86 400 8001 2345", "no number of mainland China has 11 digits"),
    ("+86 10 6655 778", "no number of mainland China has 9 digits"),
    ("+86 852 9123 4567", "of Hong Kong, Macau or Singapore after 86: leave 86 out"),
    ("+86 853 6612 3456", "of Hong Kong, Macau or Singapore after 86: leave 86 out"),
    ("+86 65 9123 4567", "of Hong Kong, Macau or Singapore after 86: leave 86 out"),
    ("0086 852 9123 4567", "of Hong Kong, Macau or Singapore after 86: leave 86 out"),
    ("86 852 9123 4567", "of Hong Kong, Macau or Singapore after 86: leave 86 out"),
    ("+86 852 912 3456", "no number of mainland China has 10 digits"),
    ("1064912345678", "the number of a thing"),
    ("85291234567", "looks like +852…: the + is missing"),
    ("87011234567", "no mobile number of mainland China begins like this"),
    ("+86013112345678", "0 after +86"),
    ("+008613112345678", "both + and 00"),
    ("+868613112345678", "86 twice"),
    ("86861311234567", "after 86 come 12 digits"),
    ("1311234567", "has 10 digits"),
    ("131123456789", "has 12 digits"),
    ("12112345678", "+ and the code"),
    ("31008", "too short: 5 digits"),
    ("0", "too short"),
    ("+", "no digits"),
    ("91234567", "8 digits"),
    ("1 (305) 555-0123", "like a number of the US or Canada"),
    ("1-305-555-0123", "like a number of the US or Canada"),
    ("1.613.555.0123", "like a number of the US or Canada"),
    ("1 305 555 0123", "like a number of the US or Canada"),
    ("1(305)5550123", "like a number of the US or Canada"),
    ("1 (305) 5550123", "like a number of the US or Canada"),
    ("(1) 305-555-0123", "like a number of the US or Canada"),
    ("(1)3055550123", "like a number of the US or Canada"),
    ("(1 305) 555-0123", "like a number of the US or Canada"),
    ("1-305-5550123", "like a number of the US or Canada"),
    ("1-3055550123", "like a number of the US or Canada"),
    ("86 1 (305) 555-0123", "like a number of the US or Canada"),
    ("(86) 1(305)5550123", "like a number of the US or Canada"),
    ("+86 1 (305) 555-0123", "like a number of the US or Canada"),
    ("+13812345678", "no number of +1 begins like this: is 86 missing?"),
    ("0013812345678", "no number of +1 begins like this: is 86 missing?"),
    ("00131 1234 5678", "no number of +1 begins like this: is 86 missing?"),
    ("6591234567", "looks like +65…: the + is missing"),
    ("021-60000001", "fixed line"),
    ("+65 9123", "too short"),
    ("+659123456789012", "too long for a number of +65"),
    ("+65 9123 4567 8", "too long for a number of +65"),
    ("+852 9123 456", "too short for a number of +852"),
    ("+852 9123 4567 8", "too long for a number of +852"),
    ("+852 18501", "too short for a number of +852"),
    ("+853 6612 345", "too short for a number of +853"),
    ("+886 912 345 6789", "too long for a number of +886"),
    ("+91 98765 4321", "too short for a number of +91"),
    ("+84 91 234 567", "too short for a number of +84"),
    ("+82 10 1234 56789", "too long for a number of +82"),
    ("+81 3-1234-5678-123", "too long for a number of +81"),
    ("+31 6 1234 567", "too short for a number of +31"),
    ("+31 6 1234 56789", "no number of +31 has so many digits"),
    ("+229 95 12 34 56", "too short for a number of +229"),  # ten digits since November 2024
    ("+9665012345", "no area code after +966"),
    ("+1 555-0123", "no area code after +1, or a digit is missing"),
    ("+5255123456", "no area code after +52"),
    ("+601234567", "no area code after +60"),
    ("+62812345", "no area code after +62"),
    ("+999123456789", "no country"),
    ("+1" + "2" * 20, "too long"),
    ("131****5678", "masked"),
    ("phone", "letters"),
    ("+86+13112345678", "two plus signs"),
    ("1311234567?", "something else than digits"),
    ("1" * 65, "more than 64 characters"),
]


@pytest.mark.parametrize(("text", "number"), READ)
def test_a_usual_spelling_is_read(text, number):
    read = read_number(text)
    assert (read.e164 if isinstance(read, ReadNumber) else None) == number


@pytest.mark.parametrize(
    "number",
    [
        "+5491112345678", "+5511912345678", "+2250712345678", "+62812345678901", "+62811123456",
        "+436601234567", "+4366012345678", "+3725123456", "+37254123456", "+9613123456",
        "+96170123456", "+2290195123456", "+68512345", "+6834002", "+35627212345", "+3546111234",
        "+881612345678", "+870773110123", "+447700900123", "+15005550001", "+38344123456",
        "+8821612345678", "+883510012345678", "+3197012345678",
    ],
)  # fmt: skip
def test_a_number_of_an_unusual_length_or_plan_is_read(number):
    assert read_number(number) == ReadNumber(number)


KINDS = phonenumbers.PhoneNumberType
EXAMPLES = [
    (region, phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164))
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    for kind in (KINDS.MOBILE, KINDS.FIXED_LINE)
    if (example := phonenumbers.example_number_for_type(region, kind))
]


def test_a_mobile_number_and_a_fixed_line_of_any_country_are_read():
    assert len({region for region, _ in EXAMPLES}) == len(phonenumbers.SUPPORTED_REGIONS)
    for region, number in EXAMPLES:
        assert read_number(number) == ReadNumber(number), region


def test_a_digit_missing_or_too_many_is_refused_where_all_numbers_have_one_length():
    for code, length in (("+1", 12), ("+65", 11), ("+852", 12), ("+853", 12), ("+91", 13)):
        numbers = [number for _, number in EXAMPLES if number.startswith(code)]
        assert {len(number) for number in numbers} == {length}
        for number in numbers:
            assert isinstance(read_number(number[:-1]), DoubtfulNumber)
            assert isinstance(read_number(number + "5"), DoubtfulNumber)


def test_every_area_code_of_mainland_china_is_read():
    def is_fixed(national: str) -> bool:
        number = phonenumbers.parse("+86" + national, None)
        return phonenumbers.number_type(number) == KINDS.FIXED_LINE

    codes = [code for code in range(200, 1000) if is_fixed(f"{code}2345678")]
    assert len(codes) > 250
    for code in codes:
        number = f"+86{code}2345678"
        assert read_number(number) == ReadNumber(number)


@pytest.mark.parametrize(("text", "why"), DOUBTFUL)
def test_what_is_doubtful_is_refused_with_its_doubt(text, why):
    read = read_number(text)
    assert isinstance(read, DoubtfulNumber)
    assert why in read.reason


def test_a_number_without_its_country_is_told():
    assert read_number("13112345678") == ReadNumber(MOBILE, assumed_mainland=True)
    assert read_number("8613112345678") == ReadNumber(MOBILE)


def test_fixed_lines_are_read_without_plus_where_it_is_wanted():
    for text, number in (
        ("021-60000001", "+862160000001"),
        ("02160000001", "+862160000001"),
        ("2160000001", "+862160000001"),
        ("010 1234 5678", "+861012345678"),
        ("1064912345678", "+861064912345678"),
        ("021-6000-0001", "+862160000001"),
        ("0755-123-4567", "+867551234567"),
        ("1064-912-345-678", "+861064912345678"),
    ):
        assert read_number(text, other_mainland=True) == ReadNumber(number, assumed_mainland=True)
        assert isinstance(read_number(text), DoubtfulNumber)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("010-6655-7788-801", "an extension"),
        ("147-1234-5678-12", "an extension"),
        ("4008001234", "a service number"),
        ("1069012345678", "a service number"),
        ("85291234567", "looks like +852…: the + is missing"),
        ("6591234567", "looks like +65…: the + is missing"),
    ],
)
def test_what_is_no_fixed_line_is_refused_where_fixed_lines_need_no_plus(text, why):
    read = read_number(text, other_mainland=True)
    assert isinstance(read, DoubtfulNumber)
    assert why in read.reason


BLANKS = st.sampled_from([" ", "\xa0", "\u3000", "\u2009", "-", "\u2013", "\u2011", ".", ""])
MARKS = st.sampled_from(["", "\u200b", "\u200e", "\ufeff", "\u202a", "\u2068", " ", "\t"])
NATIONAL = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True).filter(str.isascii)
PREFIXES = st.sampled_from(["+86", "86", "0086", "", "(+86)", "(86)", "00 86", "tel:+86"])


@given(NATIONAL, PREFIXES, BLANKS, BLANKS, MARKS, MARKS, st.booleans())
def test_every_spelling_of_a_number_gives_one_form(n, prefix, gap, other, before, after, wide):
    text = f"{prefix}{gap}{n[:3]}{gap}{n[3:7]}{other}{n[7:]}"
    if wide:
        table = str.maketrans(string.digits, "０１２３４５６７８９")
        text = text.translate(table)
    read = read_number(before + text + after)
    assert isinstance(read, ReadNumber), (text, read)
    assert read.e164 == "+86" + n
    assert "+86" + n in possible_forms(before + text + after)
    assert {to_e164(written) for written in spellings(read.e164)} == {read.e164}


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_without_its_digits(text):
    read = read_number(text)
    if isinstance(read, ReadNumber):
        assert read_number(read.e164).e164 == read.e164
        assert read.e164 in possible_forms(text)
    else:
        assert read.reason
        assert not any(len(part) > 2 and part in read.reason for part in text.split())
    assert forms_in_request(text)[: len(possible_forms(text))] == possible_forms(text)


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("+8613112345678", [MOBILE]),
        ("13112345678", [MOBILE]),
        ("8613112345678", [MOBILE]),
        ("008613112345678", [MOBILE]),
        (" 8613112345678", [MOBILE]),
        (" 6591234567", ["+6591234567", "+866591234567"]),
        ("+86 131 1234 5678", [MOBILE]),
        ("", []),
        (" ", []),
    ],
)
def test_what_the_provider_writes_is_made_comparable(text, forms):
    assert possible_forms(text) == forms


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("+6591234567", ["+6591234567"]),
        ("6591234567", ["+866591234567", "+6591234567"]),
        ("6591****67", ["+866591****67", "+6591****67"]),
        ("006591234567", ["+6591234567"]),
        (" 6591234567", ["+6591234567", "+866591234567"]),
        ("13112345678", [MOBILE, "+13112345678"]),
        ("8613112345678", [MOBILE]),
        ("", []),
    ],
)
def test_among_the_numbers_of_a_request_a_plus_may_lack(text, forms):
    assert forms_in_request(text) == forms


def test_a_masked_number_fits_the_numbers_it_may_be():
    (form,) = possible_forms("86131****5678")
    assert is_masked(form)
    assert fits_mask(MOBILE, form)
    assert not fits_mask("+8613112345679", form)
    assert not fits_mask("+86131123456789", form)
    assert fits_mask(MOBILE, "+86131*5678")
    assert fits_mask(MOBILE, "*1*2*5678")
    assert not fits_mask(MOBILE, "*5678*8")  # its 8 is used once
    assert not fits_mask(MOBILE, "1*5678")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("to +8613112345678 denied", "to … denied"),
        ("号码13112345678不存在", "号码…不存在"),
        ("13112345678, 13112345679", "…, …"),
        ("ERR13112345678, to_13112345678", "ERR…, to_…"),
        ("131-1234-5678 (131) 1234 5679; +86 131.1234.5670", "…; …"),
        ("131 - 1234 - 5678 and \uff11\uff13\uff11\uff11\uff12\uff13\uff14\uff15", "… and …"),
        ("1" * 25, "…"),
        ("a2026-11-29-13112345678", "a…"),
        ("request 7f0e13112345678a, 20240815T100000Z, port 443",) * 2,
        ("2026-11-29 10:00:00.123+08:00, 2026-11-29T10:00Z, 10.20.130.255, 2026-11-29.",) * 2,
        ("id 2ea20735-f856-4376-1234-570bd70a46ee_11840135 and 13112.3",) * 2,
    ],
)
def test_words_from_outside_keep_no_number(words, kept):
    assert without_numbers(words) == kept
