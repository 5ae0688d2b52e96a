"""Why a health question got no answer, in a few words."""


def describe_cause(error: BaseException) -> str:
    """The reason at the bottom of the chain, without the layers above it."""
    deepest: BaseException = error
    while (cause := deepest.__cause__ or deepest.__context__) is not None:
        deepest = cause
    if isinstance(error, TimeoutError) or isinstance(deepest, TimeoutError):
        return "timed out"
    if isinstance(deepest, OSError) and deepest.strerror:
        return deepest.strerror
    return str(deepest)[:200] or type(deepest).__name__
