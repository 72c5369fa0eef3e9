"""Short lists in UTF-8 without a mark, and lists in GB18030 that are UTF-8 by chance."""

# ruff: noqa: RUF001 - letters of other languages

import re
from itertools import product

import pytest

from dispatcher.core.errors import ListError
from dispatcher.lists.encoding import UTF_8, find_encoding

HEAD = "recipient,template_id,param_1"
GOOD = "+8613112345678"

# Each text is the only one of its list that is not ASCII.
HONEST = {
    "Portuguese": [
        "José",
        "São João",
        "O pedido é seu",
        "Seu código é 123456",
        "1º andar",
        "Às 9h",
    ],
    "Spanish": ["¡Hola María!", "¿Qué tal?", "Nº 5 José", "Peña", "2ª planta", "7 ó 8 años"],
    "Catalan": ["Col·legi", "Lluís · Barcelona"],
    "Italian": ["Il codice è 123456", "Città", "Perché no"],
    "French": ["« Bonjour »", "Ève", "Zoë", "Reçu à 5 h", "Œuvre", "N° 5", "d´accord"],
    "German": ["Müller", "Straße", "½ Preis", "Größe 5½", "-5 °C heute", "Ö"],
    "Nordic": ["Ørsted", "Åsa", "Æsir", "Blåbær og øl", "Öl", "Smör\xadgås"],
    "Polish": ["Łódź", "Paweł Wójcik", "Pięć zł"],
    "Czech": ["Dvořák", "Žižka", "Příliš žluťoučký kůň"],
    "Turkish": ["Ünal", "İstanbul", "Işık", "Gül", "Çağrı"],
    "Vietnamese": ["Phương", "Dương", "Nguyễn", "Đức", "Dũng", "Ưng"],
    "Russian": ["дом", "да", "пн", "ОПЕКА", "мама и папа", "Здравствуйте, заказ готов", "код 5"],
    "Ukrainian": ["Сіль", "Дім", "Київ", "Її код"],
    "Greek": ["Γειά σας", "ναι", "μαμά", "και", "Ελένη"],
    "Hebrew": ["שלום", "הקוד שלך"],
    "Arabic": ["مرحبا", "أحمد", "رمز 5"],
    "Thai": ["สวัสดี"],
    "Korean": ["안녕하세요", "김"],
    "Japanese": ["こんにちは", "山田"],
    "Chinese": ["谢", "é, 谢", "5元"],
    "signs": [
        *("20 °C", "25°", "5 £", "£ 5", "Price (£)", "¥5", "100 ¥", "10 µm", "±5", "5 m²", "§ 5"),
        *("Vodafone®", "André & Zoë © 2026", "«Si»", "1½", "100 €"),
    ],
}
# Single characters, and cells as they are in lists of Chinese people.
CHINESE = [
    *(["谢"], ["郑", "谦"], ["小A", "谢", "JANE"], ["毛"], ["谢", "谢", "王"], ["肖", "Tom"]),
    *(["谢谢"], ["毛毛"], ["笑笑"], ["魏伟"], ["钱强"], ["谢小"], ["郑谦"], ["专注"], ["学医"]),
    *(["小谢"], ["肖笑"], ["韦唯"], ["魏维"]),
    *(["鲁A12345"], ["豫A12345"], ["陆A"], ["25元"], ["25楼"], ["5路"], ["5毛"], ["B2楼"], ["陆"]),
]


@pytest.mark.parametrize("text", [text for texts in HONEST.values() for text in texts])
def test_a_short_list_in_utf_8_is_read_as_such(tmp_path, text):
    file = written(tmp_path, [text], "utf-8")
    assert find_encoding(file, None).name == UTF_8


@pytest.mark.parametrize("texts", CHINESE, ids="".join)
def test_chinese_cells_that_are_utf_8_by_chance_are_asked_for(tmp_path, texts):
    assert is_asked(tmp_path, texts), texts


CAPITALS = {
    "cp1251": ["ИВАНОВ", "ПЕТРОВ", "СИДОРОВА", "КУЗНЕЦОВ", "СЕМЁНОВА"],
    "cp1253": ["ΠΕΤΡΟΣ", "ΕΛΕΝΗΣ", "ΜΑΡΙΑΝ", "ΓΙΑΝΝΗΣΑ", "ΔΗΜΗΤΡΑΚ"],
}


@pytest.mark.parametrize("encoding", CAPITALS)
def test_capitals_of_other_letters_are_not_taken_for_chinese(tmp_path, encoding):
    with pytest.raises(ListError, match="not clearly anything else"):
        find_encoding(written(tmp_path, CAPITALS[encoding], encoding), None)


# Those of which each byte may be a capital, and others.
NAMES = [
    *(
        ["张伟", "王芳"],
        ["刘洋", "李娜"],
        ["卢雷", "吕宁"],
        ["张伟"] * 20,
        ["蓝莲", "郎露", "罗伦"],
    ),
    [
        "王伟",
        "李伟",
        "张敏",
        "刘静",
        "陈丽",
        "杨强",
        "黄磊",
        "赵军",
        "吴洋",
        "周勇",
        "徐艳",
        "孙杰",
    ],
    ["卢宁", "兰萍", "林琳", "罗路", "张雷", "杨柳", "李想", "章冰", "吕露", "龙翔"],
]


@pytest.mark.parametrize("names", NAMES, ids="".join)
def test_a_short_list_of_chinese_names_is_chinese(tmp_path, names):
    assert find_encoding(written(tmp_path, names, "gb18030"), None).name == "gb18030"


def test_each_common_character_alone_is_asked_for(tmp_path):
    alone = [text for text in common() if is_utf_8(text)]
    assert len(alone) == 682  # of 3,755
    assert [text for text in alone if not is_asked(tmp_path, [text])] == []


def common():
    """Return the first level of GB 2312: the characters in common use."""
    codes = [bytes(pair) for pair in product(range(0xB0, 0xD8), range(0xA1, 0xFF))]
    return [code.decode("gb2312") for code in codes[:-5]]


def is_utf_8(text):
    try:
        text.encode("gb18030").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_asked(tmp_path, texts):
    try:
        find_encoding(written(tmp_path, texts, "gb18030"), None)
    except ListError as error:
        return re.search("GB18030, such as “(.*?)”: say which", str(error))[1] == texts[0]
    return False


def written(tmp_path, texts, encoding):
    file = tmp_path / "x.csv"
    lines = [
        HEAD,
        *(f'{GOOD},t1,"{text}"' if "," in text else f"{GOOD},t1,{text}" for text in texts),
    ]
    file.write_text("\n".join(lines), encoding)
    return file
