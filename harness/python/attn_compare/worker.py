"""The process that attn-compare starts for a backend py:FILE:NAME. It holds the interpreter, the
device's context and whatever was compiled, from case to case."""

import importlib.util
import os
import sys


def load(spec):
    """The backend that "py:FILE:NAME" or "py:FILE:NAME:OPTIONS" names."""
    from attn_compare import _abi
    from attn_compare.backends import Backend, as_backend

    _, path, name, *options = spec.split(":", 3)
    module_name = os.path.splitext(os.path.basename(path))[0]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    found = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module
    found.loader.exec_module(module)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if isinstance(value, Backend)]
        raise _abi.Error(f"{path} has no \"{name}\"; backends in it: {', '.join(known) or 'none'}")
    backend = as_backend(getattr(module, name))
    if options:
        text = options[0]
        number = text.removeprefix("config=")
        if not text.startswith("config=") or not number.isdigit() or int(number) >= len(
                backend.configs):
            raise _abi.Error(f"{spec}: the only option is config=0 to "
                             f"config={len(backend.configs) - 1}")
        backend.fixed = int(number)  # whatever the host says
    return backend


def main():
    # This file lies in the package: its siblings must not pass for the standard library's modules.
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:1] = [package] if sys.path[0] != package else sys.path[:1]
    os.environ["ATTN_COMPARE_WORKER"] = "1"
    # JAX would take three quarters of the device's memory for itself; there may be other workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import ctypes
    import traceback

    from attn_compare import _abi

    kept = []

    def loader(spec, message):
        try:
            backend = load(spec.decode())
            kept.append(backend)
            return ctypes.addressof(backend._plugin)
        except BaseException as error:  # nothing may pass into C
            if not isinstance(error, _abi.Error):
                traceback.print_exc()
            _abi.write_message(message, error if isinstance(error, _abi.Error)
                               else f"{spec.decode()}: {type(error).__name__}: {error}")
            return None

    kept.append(_abi.Loader(loader))
    _abi.library().attn_worker(kept[0], int(sys.argv[1]))


if __name__ == "__main__":
    main()
