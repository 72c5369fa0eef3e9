"""Success and time of delivery by app, template and country, beside what is usual."""

from dispatcher.core.delivery import delivery_groups
from dispatcher.core.status import DeliveredMessage


def sample(count: int, *, failed: int = 0, seconds: float = 4.0, template: str = "t"):
    return [
        DeliveredMessage("shop", template, f"+86131{n:08d}", n >= failed, seconds + n % 2)
        for n in range(count)
    ]


def groups(now, before):
    found = delivery_groups(now, before, country=lambda number: "CN" if "+86" in number else "GB")
    return {(each.kind, each.name): each for each in found}


def test_each_app_template_and_country_has_its_figures():
    abroad = [DeliveredMessage("bank", "t2", "+447400000000", True, 60.0)]
    found = groups([*sample(100, failed=10), *abroad], [])
    assert set(found) == {
        ("app", "shop"), ("app", "bank"), ("template", "t"), ("template", "t2"),
        ("country", "CN"), ("country", "GB"),
    }  # fmt: skip
    shop = found["app", "shop"].now
    assert (shop.messages, shop.share, shop.median, shop.most) == (100, 0.9, 4.5, 5.0)
    assert found["country", "GB"].now.median == 60.0
    assert found["app", "shop"].usual is None
    nothing = groups(sample(3, failed=3), [])["app", "shop"].now
    assert (nothing.share, nothing.median, nothing.most) == (0.0, None, None)


def test_what_is_worse_than_usual_is_marked_and_comes_first():
    now = [*sample(50, failed=10, template="bad"), *sample(90, template="good")]
    now += sample(30, seconds=40.0, template="slow")
    before = [*sample(100, failed=2, template="bad"), *sample(100, template="good")]
    before += sample(100, template="slow")
    found = groups(now, before)
    assert (found["template", "bad"].fewer, found["template", "bad"].slower) == (True, False)
    assert (found["template", "slow"].fewer, found["template", "slow"].slower) == (False, True)
    assert (found["template", "good"].fewer, found["template", "good"].slower) == (False, False)
    order = [name for kind, name in found if kind == "template"]
    assert order[-1] == "good"


def test_few_messages_are_not_compared():
    few = groups(sample(19, failed=19), sample(100))
    assert not few["app", "shop"].fewer
    little = groups(sample(100, failed=50), sample(19))
    assert little["app", "shop"].usual is None
