"""Which responses of a language model are left out of triples, and why."""

import pytest

from scar_hf.synthesis import Completion
from scar_hf.synthesis.filters import clean, finished, language_finder, problem_of, script_of


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two! Thr", "One. Two!"),
        ("It is made in steps:\n\n1. **Mix** the clay.\n2. **Dry", "It is made in steps:\n\n1. **Mix** the clay."),
        ("Use this:\n\n```python\nx = 1\n```\n\nThen", "Use this:\n\n```python\nx = 1\n```"),
        ("It is easy. Use this:\n\n```python\nx = 1\ny", "It is easy."),
        ("Clay is old.\n\n### Steps:\n\n- ", "Clay is old."),
        ("no end at al", ""),
    ],
)
def test_the_end_of_a_whole_sentence(text, whole):
    assert finished(text) == whole


HUMAN = "The dam at Aswan was built between 1960 and 1970 to control the yearly floods of the Nile and to produce electricity."
GOOD = (
    "Between 1960 and 1970 a dam went up at Aswan; it tames the floods that the Nile brings yearly, and produces electricity."
)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("direct", GOOD, None),
        ("referenced", GOOD, None),
        ("direct", "  \n", "empty"),
        ("direct", "<think>Hm, hm.</think>\n", "empty"),
        ("direct", "<think>Well, the dam", "cut off"),
        ("direct", "As an AI language model, I have no opinion about dams.", "AI disclaimer"),
        ("direct", "I am unable to answer this question about the dam.", "refusal"),
        ("direct", "I'm sorry to hear that your field was flooded. The dam at Aswan has prevented this since 1970.", None),
        ("direct", "The dam holds water. " * 12, "repeats itself"),
        ("direct", "Tell me why the Aswan dam was built.", "copies the instruction"),
        ("direct", "The dam was built for electricity.<|im_end|>\nuser: and the floods?", "chat marks"),
        ("referenced", HUMAN + " It is large.", "copies the reference"),
        ("referenced", "According to the answer above, the Nile's floods led to a dam at Aswan, 1960 to 1970, for electricity.",
         "mentions the reference"),
        ("referenced", f"Here is the rewritten answer: {GOOD}", "mentions the reference"),
        ("referenced", "It is a very famous building in a country far away.", "drops the reference"),
        ("direct", "Der Damm bei Assuan wurde gebaut, um die jährlichen Fluten des Nils zu zähmen und Strom zu erzeugen.",
         "another language"),
    ],
)  # fmt: skip
def test_reasons_to_leave_a_response_out(kind, text, reason):
    found = problem_of(
        kind, Completion(text, "stop"), "Tell me why the Aswan dam was built.", HUMAN, language=language_finder()
    )
    assert found == reason


def test_without_a_language_library_the_script_tells():
    text = "Плотина построена между 1960 и 1970 годами, чтобы управлять паводками."
    assert problem_of("direct", Completion(text), "Why?", HUMAN, language=script_of) == "another language"
    assert problem_of("direct", Completion(GOOD), "Why?", HUMAN, language=script_of) is None


@pytest.mark.parametrize(
    ("human", "rewrite"),
    [
        (
            "蜜蜂住在蜂巢里，它们每天出去采集花蜜，工蜂负责照顾幼虫，蜂王专门负责产卵，雄蜂只在夏天出现，花蜜经过加工变成蜂蜜，"
            "蜂蜜被储存在蜂房中，冬天它们靠这些蜂蜜过冬，所以养蜂人不能取走全部蜂蜜。",
            "在蜂巢里生活的蜜蜂，每天都会外出采集花蜜。照顾幼虫的是工蜂，产卵则是蜂王的任务，到了夏天才能见到雄蜂。采来的花蜜会被"
            "加工成蜂蜜，存放在蜂房里面，作为冬天的食物，因此养蜂人要给蜜蜂留下一部分。",
        ),
        (
            "ミツバチは巣に住み、毎日花の蜜を集め、働きバチは幼虫を育て、女王バチは卵を産み、雄バチは夏だけ現れ、蜜は蜂蜜に加工され、"
            "蜂蜜は巣房に蓄えられ、冬はそれを食べて過ごします。",
            "巣で暮らすミツバチたちは、日ごとに花から蜜を集めてくる。幼虫の世話は働きバチ、産卵は女王バチの役目で、雄は夏にしか"
            "見られない。集めた蜜から作った蜂蜜を蓄え、冬の食料とする。",
        ),
        (
            "1. 揉面\n2. 发酵\n3. 分割\n4. 整形\n5. 醒发\n6. 烘烤\n7. 冷却\n8. 切片，用 2 克盐和 10 克糖。",
            "先把面团揉好，等它发起来以后分成小块，做出形状再醒一次，然后送进烤箱，放凉后切开；盐和糖都只要一点。",
        ),
    ],
)  # fmt: skip
def test_a_rewrite_in_a_script_without_spaces_is_kept(human, rewrite):
    assert problem_of("referenced", Completion(rewrite), "?", human, language=script_of) is None


def test_names_in_a_script_without_spaces_do_not_hide_a_dropped_reference():
    human = f"{HUMAN} Its Chinese name is 阿斯旺大坝."
    assert (
        problem_of("referenced", Completion("It is a very famous building (大坝) far away."), "?", human)
        == "drops the reference"
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Okay, the user asks what bees eat.\n</think>\n\nBees eat nectar.", "Bees eat nectar."),
        ("\n</think>\n\nBees eat nectar.", "Bees eat nectar."),
        ("Hm.</think>Bees eat nectar.", "Bees eat nectar."),
        ("<think>The user means `</think>`.</think> Bees eat nectar.", "Bees eat nectar."),
        ("Thoughts end with `</think>`.\nThen comes the answer.", "Thoughts end with `</think>`.\nThen comes the answer."),
        ("A template:\n```\n<think>\nhm\n</think>\n```", "A template:\n```\n<think>\nhm\n</think>\n```"),
    ],
)
def test_thoughts_are_removed_and_tags_in_code_stay(text, answer):
    assert clean(text) == answer
    assert problem_of("direct", Completion(text), "What?", HUMAN) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Okay, the user asks what bees eat.\n</think>\n", "empty"),
        ("Bees eat nectar. <think>And pollen?</think> And pollen.", "chat marks"),
        ("Hm.\n</think>\n\nBees eat nectar.\n</think>\n\nAnd pollen.", "chat marks"),
        ("It writes </think> and then the answer.", "chat marks"),
        ("Hm.\n</think>\n\nBees eat nectar.\n<think>And", "cut off"),
        ("Use this:\n\n```yaml\nuser: admin\n```\n\nChange it first.", None),
        ("Use this:\n\n```yaml\nname: admin\n```\n\nuser: and then?", "chat marks"),
    ],
)
def test_marks_of_thoughts_and_turns_outside_code(text, reason):
    assert problem_of("direct", Completion(text), "What?", HUMAN) == reason
