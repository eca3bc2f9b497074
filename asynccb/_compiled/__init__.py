"""
The hot path in C, for machines where the package was installed with a compiler.

`hot.c` writes logs of a known form; the plain Python twins of its classes lie in the rooms that use
them. `gather.cu` is the kernel that copies scalars of a device into slots.

May import: nothing.
"""
