"""What our dataclasses keep of the standard library's, and in what they differ."""

import dataclasses

import pytest

from sampan.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """A value."""

    target: str
    options: list[str] = dataclasses.field(default_factory=list, compare=False)
    read_only: bool = False
    secret: str = dataclasses.field(default="", repr=False)


@dataclass(slots=True)
class Bind(Mount):
    """A subclass, with a field more and a check."""

    source: str = "/"

    def __post_init__(self):
        if not self.source:
            raise ValueError("no source")


@dataclass(slots=True, eq=False)
class Open:
    """Equal to itself alone."""

    fd: int


@dataclass(frozen=True, slots=True)
class Named:
    """With methods of its own."""

    name: str

    def __eq__(self, other):
        return self.name.lower() == other.name.lower()

    def __hash__(self):
        return hash(self.name.lower())

    def __repr__(self):
        return self.name


def test_equal_by_the_fields_that_count():
    assert Mount("/a", ["x"]) == Mount("/a", ["y"]) != Mount("/b", ["x"])
    assert Mount("/a") != Bind("/a")
    assert Mount("/a") != "/a"
    assert len({Mount("/a", ["x"]), Mount("/a", ["y"]), Mount("/b")}) == 2
    assert Open(1) != Open(1)
    assert len({Open(1), Open(1)}) == 2


def test_what_may_change_has_no_hash():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Bind("/a"))


def test_shown_with_names_but_for_what_is_not_to_be_shown():
    assert repr(Mount("/a", ["x"], secret="y")) == "Mount(target='/a', options=['x'], read_only=False)"
    loop = Mount("/a")
    loop.options.append(loop)
    assert repr(loop) == "Mount(target='/a', options=[...], read_only=False)"


def test_own_methods_stay():
    assert Named("a") == Named("A")
    assert len({Named("a"), Named("A")}) == 1
    assert repr(Named("a")) == "a"


def test_slots_defaults_and_checks():
    one, other = Mount("/a"), Mount("/a")
    assert one.options is not other.options
    assert not hasattr(one, "__dict__")
    with pytest.raises(AttributeError):
        object.__setattr__(one, "unknown", 1)
    with pytest.raises(ValueError, match="no source"):
        Bind("/a", source="")
    with pytest.raises(TypeError, match=r"^Mount.__init__\(\) missing .*: 'target'$"):
        Mount()


def test_functions_of_the_standard_library_know_them():
    assert dataclasses.replace(Bind("/a"), source="/b") == Bind("/a", source="/b")
    assert dataclasses.asdict(Named("x")) == {"name": "x"}
    match Bind("/a", source="/s"):
        case Bind(target=target, source=source):
            assert (target, source) == ("/a", "/s")


def test_a_field_that_init_would_not_know_how_to_set_is_refused():
    with pytest.raises(TypeError, match=r"Late\.value: only ordinary parameters"):

        @dataclass(slots=True)
        class Late:
            value: int = dataclasses.field(init=False)
