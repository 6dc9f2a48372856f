"""Python functions of tensors, recorded as graphs of torch's operations and made into machine code.

:mod:`.functional` records, :mod:`.compiled` decides, :mod:`.loops` and :mod:`.inductor` compile.
"""
