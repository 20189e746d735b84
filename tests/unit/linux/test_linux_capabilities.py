"""Names and bits of capabilities; resource limits of this very process."""

import errno
import resource

import pytest

from sampan.linux import capabilities, rlimits


def test_names_are_the_kernels_numbers():
    assert (capabilities.number("CAP_CHOWN"), capabilities.number("CAP_SYS_ADMIN")) == (0, 21)
    assert capabilities.number("CAP_CHECKPOINT_RESTORE") == 40 == len(capabilities.ALL) - 1
    assert len(capabilities.DEFAULT) == 14
    with pytest.raises(ValueError, match="CAP_FOO"):
        capabilities.number("CAP_FOO")


def test_bits_leave_out_what_the_kernel_does_not_know(monkeypatch):
    monkeypatch.setattr(capabilities, "last_cap", lambda: 37)
    assert capabilities.mask(["CAP_CHOWN", "CAP_KILL", "CAP_BPF"]) == 1 | 1 << 5


def test_limits_are_set_and_refusals_explained():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        rlimits.apply([{"type": "RLIMIT_CORE", "soft": 0, "hard": hard if hard >= 0 else 2**64 - 1}])
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    with pytest.raises(OSError, match="RLIMIT_NOFILE to 9:5: the soft limit is above") as refused:
        rlimits.apply([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 5}])
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(ValueError, match="RLIMIT_X"):
        rlimits.apply([{"type": "RLIMIT_X", "soft": 1, "hard": 1}])
