"""The flag parser: pflag's forms and words."""

import pytest

from sampan.cli.app import find
from sampan.cli.containers.options import RUN_FLAGS
from sampan.cli.flags import Flag, HelpWanted, Problem, parse
from sampan.cli.tree import GROUPS, NESTED, TOP


def run_words(*words):
    return parse(RUN_FLAGS, words, interspersed=False)


def test_combined_short_flags_and_values():
    values, rest = run_words(
        "-itd", "-eA=1", "-e=B=2", "-e", "C=3", "--name=x", "--rm", "busybox", "ls", "-l"
    )
    assert values.on("interactive") and values.on("tty") and values.on("detach") and values.on("rm")
    assert values.items("env") == ["A=1", "B=2", "C=3"]
    assert values.text("name") == "x"
    assert rest == ["busybox", "ls", "-l"]


def test_bool_given_false_and_double_dash():
    values, rest = run_words("--sig-proxy=false", "--init=true", "--", "busybox", "--rm")
    assert not values.on("sig-proxy") and values.on("init")
    assert rest == ["busybox", "--rm"]


def test_flags_after_arguments_where_allowed():
    values, rest = parse((Flag("all", "bool", "", "a"),), ("x", "-a", "y"), interspersed=True)
    assert values.on("all") and rest == ["x", "y"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bogus"], "unknown flag: --bogus"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-ix"], "unknown shorthand flag: 'x' in -x"),
        (["--name"], "flag needs an argument: --name"),
        (["-h"], "flag needs an argument: 'h' in -h"),
        (["--=x"], "bad flag syntax: --=x"),
        (["-m", "1z"], 'invalid argument "1z" for "-m, --memory" flag: invalid suffix: \'z\''),
        (["--cpus", "x"], 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'),
        (["-e", "=x"], 'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x'),
        (["-l", "=x"], 'invalid argument "=x" for "-l, --label" flag: invalid label \'=x\': empty name'),
        (["--mount", "type=x"], None),
        (["--ulimit", "foo"], 'invalid argument "foo" for "--ulimit" flag: invalid ulimit argument: foo'),
        (
            ["-a", "foo"],
            'invalid argument "foo" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR',
        ),
        (
            ["--health-interval", "x"],
            'invalid argument "x" for "--health-interval" flag: time: invalid duration "x"',
        ),
        (["--network", "a=b"], 'invalid argument "a=b" for "--network" flag: invalid field key a'),
        (
            ["--dns", "foo"],
            'invalid argument "foo" for "--dns" flag: IP address is not correctly formatted: foo',
        ),
        (["--sysctl", "foo"], 'invalid argument "foo" for "--sysctl" flag: sysctl \'foo\' is not allowed'),
        (
            ["--add-host", "foo"],
            'invalid argument "foo" for "--add-host" flag: bad format for add-host: "foo"',
        ),
        (
            ["--pids-limit", "x"],
            'invalid argument "x" for "--pids-limit" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
    ],
)
def test_refusals_are_worded_as_docker_words_them(words, message):
    with pytest.raises(Problem) as caught:
        run_words(*words)
    if message is not None:
        assert str(caught.value) == message


def test_help_is_asked_for():
    with pytest.raises(HelpWanted):
        run_words("--help")


def test_every_command_of_the_tree_loads_and_renders_its_help():
    from sampan.cli.help import command_help, group_help, root_help

    assert "Common Commands:" in root_help()
    for name in TOP:
        command, path, _ = find([name])
        assert command_help(command, path).startswith(f"Usage:  sampan {name}")
    for group, (_, members) in {**GROUPS, **NESTED}.items():
        assert f"sampan {group} COMMAND" in group_help(group)
        for name in members:
            command, path, _ = find([*group.split(), name])
            assert path == f"{group} {name}" and command_help(command, path)


def test_no_command_has_two_flags_of_one_name_or_letter():
    for name in TOP:
        command, _, _ = find([name])
        names = [flag.name for flag in command.flags or ()]
        letters = [flag.short for flag in command.flags or () if flag.short]
        assert len(set(names)) == len(names) and len(set(letters)) == len(letters), name
