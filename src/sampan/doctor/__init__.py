"""`sampan doctor`: are this kernel and this machine fit to run containers, and what mends them if not.

A program of its own (`python -m sampan.doctor`), as the command line may know nothing of the kernel: it needs
no daemon and starts none. It lies above all that the daemon is made of, so that it tries the very code that a
start runs, and nothing may import it. What a refusal means it has from `sampan.linux.features`, as the daemon
has.
"""
