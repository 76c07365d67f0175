"""Private names of other libraries, one module for each library; other packages do not use any.

A private name is declared as a `PrivateName`, which checks it before use. If it is missing or not as expected, the
fallback in its docstring is used, and a warning names the library and its version.
"""
