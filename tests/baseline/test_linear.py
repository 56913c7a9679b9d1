"""The linear baselines against scikit-learn by hand."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from danube_sweep.baseline.linear import answers, losses
from danube_sweep.config.schema import Target
from danube_sweep.data.records import Parts, Record

WORDS = ["red apple", "green apple", "red car", "fast car", "slow car"]


def rows(texts: list[tuple[str, ...]], labels: list[tuple[float, ...]]) -> list[Record]:
    return [Record(str(n), text, label, text[0]) for n, (text, label) in enumerate(zip(texts, labels, strict=True))]


def parts(train: list[Record], validation: list[Record], classes: list[str]) -> Parts:
    return Parts(train, validation, [], classes)


def fruit() -> Parts:
    train = rows([(text,) for text in WORDS], [(1, 0), (1, 0), (0, 1), (0, 1), (0, 1)])
    return parts(train, rows([("green car",), ("an apple",)], [(0, 1), (1, 0)]), ["fruit", "car"])


def lengths(texts: list[str]) -> np.ndarray:
    return np.log1p([[len(text), len(text.split())] for text in texts])


def standardised(train: np.ndarray, asked: np.ndarray) -> np.ndarray:
    spread = train.std(axis=0)
    return (asked - train.mean(axis=0)) / np.where(spread == 0, 1, spread)


def test_words_and_lengths_are_a_logistic_regression_of_scikit_learn() -> None:
    found = answers(fruit(), Target.one, words=True)
    asked = ["green car", "an apple"]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit(WORDS)
    train = np.hstack([standardised(lengths(WORDS), lengths(WORDS)), words.transform(WORDS).toarray()])
    plain = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(train, [0, 0, 1, 1, 1])
    other = np.hstack([standardised(lengths(WORDS), lengths(asked)), words.transform(asked).toarray()])
    np.testing.assert_allclose(found, plain.predict_proba(other), atol=2e-3)


def test_two_answers_are_told_apart_by_their_difference_alone() -> None:
    texts = [("p", "good", "bad"), ("p", "bad", "good"), ("q", "good", "bad"), ("q", "bad", "good")]
    train = rows(texts, [(1, 0, 0), (0, 1, 0), (1, 0, 0), (0, 1, 0)])
    asked = rows([("r", "good", "bad"), ("r", "bad", "good")], [(1, 0, 0), (0, 1, 0)])
    found = answers(parts(train, asked, ["a", "b", "tie"]), Target.one, words=True)
    np.testing.assert_allclose(found[0, :2], found[1, 1::-1], atol=1e-6)
    assert found[0, 0] > found[0, 1] and found[0, 2] < 1e-4  # no training row is a tie


def test_a_soft_label_counts_for_each_class_by_its_share() -> None:
    soft = parts(rows([("a",), ("bb bb",)], [(0.25, 0.75), (1, 0)]), rows([("a",)], [(1, 0)]), ["x", "y"])
    texts = np.array(["a", "a", "bb bb"])
    train = standardised(lengths(["a", "bb bb"]), lengths(list(texts)))
    plain = LogisticRegression(C=1.0, tol=1e-8).fit(train, [0, 1, 0], sample_weight=[0.25, 0.75, 1])
    np.testing.assert_allclose(answers(soft, Target.one, words=False), plain.predict_proba(train[:1]), atol=1e-3)


def test_a_number_is_a_ridge_regression_and_several_classes_are_one_each() -> None:
    texts = [("a",), ("bb bb",), ("ccc ccc ccc",)]
    numbers = parts(rows(texts, [(1.0,), (2.0,), (4.0,)]), rows(texts, [(1.0,), (2.0,), (4.0,)]), ["score"])
    train = standardised(*[lengths([text for (text,) in texts])] * 2)
    plain = Ridge(alpha=1.0).fit(train, [1, 2, 4]).predict(train)
    found = answers(numbers, Target.number, words=False)
    np.testing.assert_allclose(found[:, 0], plain, atol=1e-6)
    np.testing.assert_allclose(losses(found, np.array([[1.0], [2.0], [4.0]]), Target.number), (plain - [1, 2, 4]) ** 2)
    several = parts(rows(texts, [(1, 0), (1, 1), (1, 1)]), rows(texts, [(1, 0), (1, 1), (1, 1)]), ["x", "y"])
    both = answers(several, Target.many, words=False)
    assert (both[:, 0] > 0.999).all() and both[0, 1] < both[2, 1]


def test_losses_are_those_of_the_heads() -> None:
    found = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    labels = np.array([[1.0, 0, 0], [0, 0.5, 0.5]])
    assert losses(found, labels, Target.one) == pytest.approx([np.log(2), -0.5 * np.log(0.1) - 0.5 * np.log(0.8)])
    many = -(labels * np.log(found) + (1 - labels) * np.log(1 - found)).mean(axis=1)
    assert losses(found, labels, Target.many) == pytest.approx(many)


def test_texts_without_a_word_leave_the_lengths() -> None:
    empty = parts(rows([("",), ("!!",), ("?",)], [(1, 0), (0, 1), (0, 1)]), rows([("",)], [(1, 0)]), ["x", "y"])
    found = answers(empty, Target.one, words=True)
    assert found.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found, answers(empty, Target.one, words=False))
