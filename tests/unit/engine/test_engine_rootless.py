"""What a daemon without root refuses, by name."""

import pytest

from sampan.engine.model import ContainerConfig, DeviceMapping, HostConfig
from sampan.engine.rootless import check
from sampan.errors import InvalidParameter


@pytest.mark.parametrize(
    ("options", "labels", "why"),
    [
        ({"cgroup_parent": "/x"}, {}, "has no cgroups"),
        ({"device_cgroup_rules": ["c 1:3 r"]}, {}, "cannot set device rules"),
        ({"devices": [DeviceMapping("/dev/a", "/dev/b", "rwm")]}, {}, "keeps its name and permissions"),
        ({"devices": [DeviceMapping("/dev/a", "/dev/a", "r")]}, {}, "keeps its name and permissions"),
        ({"pid_mode": "container:x"}, {}, "use exec, or --pid host"),
        ({}, {"sampan.publish-mode": "nat"}, "published by proxy"),
    ],
)
def test_refused(options, labels, why):
    with pytest.raises(InvalidParameter, match=why):
        check(ContainerConfig(labels=labels), HostConfig(**options), cgroups=False)


def test_the_rest_is_fine():
    fine = HostConfig(devices=[DeviceMapping("/dev/a", "", "")], pid_mode="host", cgroup_parent="/x")
    check(ContainerConfig(), fine, cgroups=True)
