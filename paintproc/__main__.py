"""The entry point of the command: first it listens for signals, then it loads what the command needs."""

from paintproc.stopping import leave, listen, say_stopped, stopped


def main() -> None:
    listen()
    from paintproc.cli import main as run

    code = 0
    try:
        run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        if not stopped():
            raise
        say_stopped()
        code = stopped()
    leave(code)


if __name__ == "__main__":
    main()
