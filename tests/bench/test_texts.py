"""The texts that tokenizers are timed on."""

from refllm.bench import texts


def test_code_is_pythons_own_and_of_the_size_asked_for():
    code = texts.code(300_000)
    assert 299_000 < len(code.encode()) <= 300_000
    assert "def " in code
    assert code == "".join(texts.library_sources(300_000))


def test_the_mix_holds_every_script_and_is_the_same_for_the_same_seed():
    mix = texts.mix(50_000, seed=1)
    assert mix == texts.mix(50_000, seed=1)
    assert mix != texts.mix(50_000, seed=2)
    assert 50_000 <= len(mix.encode()) < 50_100
    for points, _ in texts.SCRIPTS.values():
        assert any(ord(character) in points for character in mix)


def test_a_random_word_is_one_word():
    word = texts.random_word(1000, seed=0)
    assert len(word) == 1000
    assert word.isalpha()
    assert len(set(word)) == 26
