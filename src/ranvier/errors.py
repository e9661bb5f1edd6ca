"""Every error Ranvier raises on purpose. The message says what was passed, why it fails, what to write."""


def printable(text: str) -> str:
    """A text with escapes in place of what does not print, lines and tabs aside.

    Names come from files, and can hold what moves a terminal's cursor or turns the direction of a line around.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class RanvierError(Exception):
    """Base class of all errors raised by Ranvier."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ModelError(RanvierError):
    """The object is not a model, or the model cannot be traced."""


class InputError(RanvierError):
    """An example input, parameter or state does not fit the model."""


class AnalysisError(RanvierError):
    """An analysis was asked for something the model does not have."""


class RuleError(RanvierError):
    """A learning rule cannot be applied to the model, or its options contradict each other."""


class TrainingError(RanvierError):
    """Training cannot continue: a value is not finite, or a library that it needs is missing."""


class GraphError(RanvierError):
    """A graph is invalid, or was asked for something it does not have."""


class PassError(RanvierError):
    """A pass or a pipeline is unknown, has options that make no sense, or broke its promise."""


class ExportError(RanvierError):
    """A model cannot be exported in the requested form, or a file does not contain a model."""


class RegistrationError(RanvierError):
    """A primitive was registered with options that contradict each other."""


class PictureError(RanvierError):
    """A picture cannot be drawn or written."""


def reason_text(error: BaseException) -> str:
    """Type and message of another library's error, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.strip("-")]
    message = " ".join(told[:2])
    return f"{type(error).__name__}: {message if len(message) <= 240 else message[:237] + '...'}"
