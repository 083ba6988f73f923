"""Every public name says what goes in, what comes out, and what is raised."""

import dataclasses
import inspect
import re

import pytest
from docstring_parser import parse

import jtrust

NAMES = [name for name in jtrust.__all__ if name != "__version__"]
FUNCTIONS = [n for n in NAMES if inspect.isfunction(getattr(jtrust, n))]
CLASSES = [n for n in NAMES if inspect.isclass(getattr(jtrust, n))]
MODULES = [n for n in NAMES if inspect.ismodule(getattr(jtrust, n))]
# What names a paper or a chapter of one.
_SOURCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|\(\w[^)]*\d{4}\)")


def _described(docstring):
    """{name of an argument or attribute: what is said of it}."""
    return {
        name.strip(): (one.description or "").strip()
        for one in parse(docstring).params for name in one.arg_name.lstrip("*").split(",")
    }


def _of_class(cls):
    found = {}
    for base in cls.__mro__:
        found = _described(base.__doc__ or "") | found
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_they_take_and_raise(name):
    function = getattr(jtrust, name)
    parsed = parse(function.__doc__)
    assert parsed.short_description
    described = _described(function.__doc__)
    for parameter in inspect.signature(function).parameters:
        assert described.get(parameter), f"{name}({parameter}=) is not described"
    assert parsed.raises and all(one.description for one in parsed.raises)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_say_what_they_hold(name):
    cls = getattr(jtrust, name)
    assert cls.__doc__ and not cls.__doc__.startswith(f"{name}("), "made by dataclasses"
    if dataclasses.is_dataclass(cls):
        described = _of_class(cls)
        for field in dataclasses.fields(cls):
            if not field.name.startswith("_"):
                assert described.get(field.name), f"{name}.{field.name} is not described"
    for attribute, value in vars(cls).items():
        public = not attribute.startswith("_")
        if public and (inspect.isfunction(value) or isinstance(value, property)):
            assert inspect.getdoc(getattr(cls, attribute)), f"{name}.{attribute} says nothing"


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_each_of_their_names_does(name):
    module = getattr(jtrust, name)
    assert module.__doc__
    for attribute in getattr(module, "__all__", [x for x in vars(module) if not x.startswith("_")]):
        value = getattr(module, attribute)
        home = getattr(value, "__module__", "") or ""
        if not callable(value) or not home.startswith(module.__name__):
            continue
        assert inspect.getdoc(value), f"{name}.{attribute} says nothing"
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    told = inspect.getdoc(getattr(value, method)) or f"{method}(" in module.__doc__
                    assert told, f"{attribute}.{method}"


@pytest.mark.parametrize("name", ["TRPO", "NPG", "PPO", "PPOPenalty", "GAE", "ValueFit", "Bins"])
def test_methods_name_their_source(name):
    text = " ".join(b.__doc__ or "" for b in getattr(jtrust, name).__mro__ if b is not object)
    assert _SOURCE.search(text)


@pytest.mark.parametrize("function, shapes", [
    (jtrust.advantages.gae, "[T, N]"),
    (jtrust.distributions.DiagonalGaussian, "[..., A]"),
    (jtrust.distributions.Categorical, "[..., K]"),
    (jtrust.Policy, "[..., O]"),
    (jtrust.Box, "[size]"),
])
def test_arrays_have_shapes(function, shapes):
    assert shapes in inspect.getdoc(function)
