"""Log drivers' options: Docker's refusals, defaults, tags and attributes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.engine import log_config
from sampan.engine.model import Container, ContainerConfig, HostConfig, LogConfig
from sampan.engine.options import EngineOptions
from sampan.errors import SampanError
from sampan.logdrivers import options as log_options
from sampan.logdrivers import tags

OPTIONS = EngineOptions(Path("/d"), Path("/e"))
INFO = tags.Info("0123456789abcdef" * 4, "web", "sha256:fedcba98" + "0" * 56, "img:1", "sh -c x", 0)


def container(driver: str, **options: str) -> Container:
    config = LogConfig(driver, {name.replace("_", "-"): value for name, value in options.items()})
    return Container(
        id="0123456789abcdef" * 4, name="web", created_at_ns=0, image_id="sha256:" + "1" * 64,
        config=ContainerConfig(image="img:1", labels={"team": "a", "x.y": "z"}, env=["ZONE=eu", "B=c"]),
        host_config=HostConfig(log_config=config), path="sh", args=["-c", "x"], driver="overlay2",
    )  # fmt: skip


def test_logs_are_bounded_unless_the_user_says_otherwise() -> None:
    spec = log_config.log_spec(Path("/l"), container("json-file"))
    assert spec is not None and (spec.max_size_bytes, spec.max_files, spec.compress) == (20_000_000, 5, False)
    spec = log_config.log_spec(Path("/l"), container("json-file", max_size="-1"))
    assert spec is not None and spec.max_size_bytes == 0
    assert log_options.file_limits("local", {}) == (20 * 1024 * 1024, 5, True)
    assert log_options.file_limits("local", {"max-size": "10k", "max-file": "1"}) == (10_000, 1, False)
    assert log_config.log_spec(Path("/l"), container("none")) is None


def test_attributes_and_tag_go_with_each_line() -> None:
    spec = log_config.log_spec(
        Path("/l"),
        container("json-file", labels="team,nix", env_regex="^Z", labels_regex="y$", tag="{{.Name}}/{{.ID}}"),
    )
    assert spec is not None
    assert spec.attrs == {"team": "a", "x.y": "z", "ZONE": "eu", "tag": "web/0123456789ab"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.ID}}", "0123456789ab"),
        ("{{.FullID}}", "0123456789abcdef" * 4),
        ("a-{{ .Name }}-{{.ImageName}}", "a-web-img:1"),
        ("{{.ContainerName}} {{.ImageID}}", "/web sha256:fedcb"),
        ("{{.Name | upper}}{{lower .Command}}", "WEBsh -c x"),
        ("{{.DaemonName}}{{json .Name}}", 'docker"web"'),
    ],
)
def test_tags_are_templates(template: str, expected: str) -> None:
    assert tags.render(template, INFO) == expected


def test_the_daemons_options_count_for_its_driver_alone() -> None:
    options = EngineOptions(Path("/d"), Path("/e"), log_driver="local", log_opts={"max-size": "1m"})
    config = LogConfig("", {"max-file": "2"})
    log_config.complete(config, options)
    assert config == LogConfig("local", {"max-size": "1m", "max-file": "2"})
    config = LogConfig("local", {"max-size": "2m"})
    log_config.complete(config, options)
    assert config.config == {"max-size": "2m"}
    config = LogConfig("json-file", {})
    log_config.complete(config, options)
    assert config.config == {}


@pytest.mark.parametrize(
    ("driver", "given", "words"),
    [
        ("splunk", {}, "logger: no log driver named 'splunk' is registered"),
        ("json-file", {"max-siez": "1m"}, "unknown log opt 'max-siez' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for log driver local"),
        ("json-file", {"max-size": "many"}, "error parsing option max-size: invalid size: 'many'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("local", {"compress": "maybe"}, "error parsing option compress: invalid syntax"),
        ("json-file", {"compress": "true", "max-file": "1"}, "compress cannot be true when max-file is less"),
        ("json-file", {"mode": "sometimes"}, "logger: logging mode not supported: sometimes"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("json-file", {"env-regex": "("}, "error parsing option env-regex"),
        ("json-file", {"tag": "{{.Nam}}"}, "there is no field .Nam"),
        ("json-file", {"tag": "{{range .}}"}, "only fields such as {{.Name}} are offered"),
        ("json-file", {"tag": "{{.Name"}, "unclosed action"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "much"}, "max-buffer-size"),
        ("syslog", {"syslog-address": "http://x"}, "syslog-address should be in form proto://address"),
        ("syslog", {"syslog-address": "tcp://x:y"}, "invalid syslog-address"),
        ("syslog", {"syslog-format": "x"}, "Invalid syslog format"),
        ("syslog", {"syslog-facility": "24"}, "invalid syslog facility"),
        ("syslog", {"syslog-tls-cert": "/c"}, "needs a syslog-address with tcp+tls://"),
        ("gelf", {}, "gelf-address is a required parameter"),
        ("gelf", {"gelf-address": "http://x:1"}, "endpoint needs to be TCP or UDP"),
        ("gelf", {"gelf-address": "udp://x"}, "please provide gelf-address as proto://host:port"),
        ("gelf", {"gelf-address": "tcp://x:1", "gelf-compression-type": "gzip"}, "only supported on UDP"),
        ("gelf", {"gelf-address": "udp://x:1", "gelf-tcp-max-reconnect": "1"}, "only valid for TCP"),
        ("fluentd", {"fluentd-addres": "x"}, "unknown log opt 'fluentd-addres' for fluentd log driver"),
        ("fluentd", {"fluentd-async": "maybe"}, "error parsing option fluentd-async"),
        ("fluentd", {"fluentd-retry-wait": "1"}, "invalid duration '1'"),
        ("fluentd", {"fluentd-async-reconnect-interval": "1h"}, "must be between 100ms and 10s"),
        ("journald", {"max-size": "1m"}, "unknown log opt 'max-size' for journald log driver"),
        ("syslog", {"cache-max-size": "x"}, "error parsing option cache-max-size"),
        ("none", {"max-size": "1m"}, "unknown log opt 'max-size' for none log driver"),
    ],
)
def test_what_is_not_offered_is_refused_in_dockers_words(
    driver: str, given: dict[str, str], words: str
) -> None:
    with pytest.raises(SampanError) as caught:
        log_config.complete(LogConfig(driver, given), OPTIONS)
    assert words in caught.value.message
