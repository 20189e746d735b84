"""Templates against what the docker binary prints for the same ones."""

import pytest

from sampan.cli.failures import CommandError
from sampan.cli.listing import Field, show
from sampan.cli.template import inspect_template

FIELDS = {
    "ID": Field("CONTAINER ID", lambda row: row["id"]),
    "Names": Field("NAMES", lambda row: row["name"]),
    "Command": Field("COMMAND", lambda row: '"sleep 10000"'),
}
ROWS = [{"id": "fdd0cd8e5a17", "name": "a1"}]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{.Names}} {{printf "%s-%d" .ID 5}}', "a1 fdd0cd8e5a17-5"),
        ("{{if .Names}}a{{else}}b{{end}}", "a"),
        ("{{- .Names -}} x", "a1x"),
        ("{{/* c */}}z", "z"),
        ("{{$x := .Names}}{{$x}}", "a1"),
        ('{{range split .Command " "}}[{{.}}]{{end}}', '["sleep][10000"]'),
        ("{{upper .Names | lower | title}}", "A1"),
        ("{{truncate .ID 3}}{{pad .ID 1 2}}|", "fdd fdd0cd8e5a17  |"),
        (
            '{{eq 1 1}} {{ne "a" "b"}} {{lt 1 2}} {{and 1 0}} {{or 0 "x"}} {{not true}}',
            "true true true 0 x false",
        ),
        ('{{print 1 2 "a"}}{{println "x" 3}}', "1 2ax 3\n"),
        ("{{with .Names}}{{.}}{{else with .ID}}q{{end}}", "a1"),
        (
            '{{printf "%q %v %5s|%-5s|%05d %x %t %T" "a" 1.5 "b" "c" 42 255 true "s"}}',
            '"a" 1.5     b|c    |00042 ff true string',
        ),
        ('{{printf "%d" "x"}} {{printf "%s"}}', "%!d(string=x) %!s(MISSING)"),
        ('{{json .Names}} {{join (split "a,b" ",") "-"}}', '"a1" a-b'),
        ('{{html "<a>"}}{{urlquery "a b&c"}}', "&lt;a&gt;a+b%26c"),
        ('{{"a" | upper | printf "%s-%s" "b"}}', "b-A"),
        ('{{range $i, $e := split "a b" " "}}{{$i}}{{$e}}{{end}}', "0a1b"),
        ('{{range $i := split "a b" " "}}{{if eq $i "b"}}{{break}}{{end}}{{$i}}{{end}}', "a"),
        ("{{1.0}} {{1e3}} {{0x10}} {{true}}", "1 1000 16 true"),
        ('{{eq "a" "b" "a"}} {{ge 2 2}} {{gt 1.5 1.0}}', "true true true"),
        ("{{$a := 1}}{{$a = 2}}{{$a}}", "2"),
        ('{{printf "%v %v" true nil}}', "true <nil>"),
        ("json", '{"Command":"\\"sleep 10000\\"","ID":"fdd0cd8e5a17","Names":"a1"}'),
        ("{{json .}}", '{"Command":"\\"sleep 10000\\"","ID":"fdd0cd8e5a17","Names":"a1"}'),
        ("table {{.ID}}\\t{{.Names | upper}}", "CONTAINER ID   NAMES\nfdd0cd8e5a17   A1"),
    ],
)
def test_rows(template, expected, capsys):
    show(ROWS, FIELDS, ("ID",), template)
    assert capsys.readouterr().out == expected + "\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{.Foo}}",
            'failed to execute template: template: :1:2: executing "" at <.Foo>: '
            "can't evaluate field Foo in type *formatter.ContainerContext",
        ),
        ("{{.ID", "failed to parse template: template: :1: unclosed action"),
        ("{{if}}", "failed to parse template: template: :1: missing value for if"),
        ("{{end}}", "failed to parse template: template: :1: unexpected {{end}}"),
        ("{{foo .ID}}", 'failed to parse template: template: :1: function "foo" not defined'),
        ("{{$y}}", 'failed to parse template: template: :1: undefined variable "$y"'),
        ("{{if true}}x", "failed to parse template: template: :1: unexpected EOF"),
        ('{{"abc', "failed to parse template: template: :1: unterminated quoted string"),
        (
            "{{index .Names 99}}",
            'failed to execute template: template: :1:2: executing "" at <index .Names 99>: '
            "error calling index: index out of range: 99",
        ),
        (
            '{{lt "a" 1}}',
            'failed to execute template: template: :1:2: executing "" at <lt "a" 1>: '
            "error calling lt: incompatible types for comparison",
        ),
        (
            "{{.Names.Foo}}",
            'failed to execute template: template: :1:8: executing "" at <.Names.Foo>: '
            "can't evaluate field Foo in type string",
        ),
        (
            "{{.ID .Names}}",
            'failed to execute template: template: :1:2: executing "" at <.ID>: '
            "wrong number of args for ID: want 0 got 1",
        ),
    ],
)
def test_mistakes(template, message):
    with pytest.raises(CommandError) as caught:
        show(ROWS, FIELDS, ("ID",), template, type_name="*formatter.ContainerContext", parsing="")
    assert caught.value.message == message


def test_inspected_values():
    value = {"Config": {"Env": None, "Cmd": ["a", "b"], "Labels": {"k": "v"}}, "State": {"Running": True}}
    render = inspect_template("{{.Config.Env}} {{.Config.Cmd}} {{.Config.Labels}} {{.State.Running}}")
    assert render(value, "container") == "[] [a b] map[k:v] true"
    assert inspect_template("{{.Config.Labels.none}}|{{.SizeRw}}")(value, "container") == "<no value>|<nil>"
    with pytest.raises(CommandError, match='map has no entry for key "Foo"'):
        inspect_template("{{.Foo}}")(value, "container")


def test_values_have_the_types_of_go():
    value = {
        "Id": "abc",
        "State": {"Status": "running", "Running": True},
        "Config": {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 90_500_000_000}},
        "HostConfig": {
            "RestartPolicy": {"Name": "always"},
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        },
        "Mounts": [{"Type": "bind", "Source": "/a", "Destination": "/b", "RW": True}],
    }

    def shown(form):
        return inspect_template(form)(value, "container")

    assert (
        shown("{{.HostConfig.RestartPolicy}} {{.HostConfig.PortBindings}}")
        == "{always 0} map[80/tcp:[{ 8080}]]"
    )
    assert shown("{{.Mounts}} {{.ID}}") == "[{bind  /a /b   true }] abc"
    assert shown("{{.Config.Healthcheck}}") == "{[CMD x] 1m30.5s 0s 0s 0s 0}"
    assert shown('{{printf "%+v" .HostConfig.RestartPolicy}}') == "{Name:always MaximumRetryCount:0}"
    assert shown("{{json .HostConfig.RestartPolicy}}") == '{"Name":"always","MaximumRetryCount":0}'
    assert shown("{{.HostConfig.CPUShares}} {{.State.Health}} {{if .State.Health}}x{{end}}") == "0 <nil> "
    # Where Go's names fail, the plain JSON is taken, by the API's names alone.
    assert shown("{{.Id}} {{.State}}") == "abc map[Running:true Status:running]"
    assert shown("{{len .State}}") == "2"
    with pytest.raises(CommandError, match='map has no entry for key "Health"'):
        shown("{{.Id}} {{.State.Health}}")
