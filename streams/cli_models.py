"""`decisioning models`: what was learned, and which version of it is used."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from streams.failure import WRONG_USE, Failure
from streams.flags import ByFlag, ConfigFlag, KafkaFlag, PrefixFlag, ReasonFlag, config_of, settings_of

models_app = typer.Typer(
    help="What was learned, and which version of it is used.",
    epilog="Example: decisioning models list --kafka localhost:9092",
    invoke_without_command=True,
    rich_markup_mode=None,
)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="<campaign>/<choice>, as `models list` has it.")]
VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", min=0, help="As `models show` has it.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models_app.command("list", epilog="Example: decisioning models list --json")
def list_(as_json: JsonFlag = False, kafka: KafkaFlag = None, topic_prefix: PrefixFlag = None) -> None:
    """Print all models, their latest version and the one in use."""
    from streams.models_shown import list_models

    raise typer.Exit(list_models(settings_of(kafka=kafka, topic_prefix=topic_prefix), as_json=as_json))


@models_app.command(epilog="Example: decisioning models show cart-abandonment/subject --config campaigns.yaml")
def show(
    model: ModelArgument,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Print what the version in use says of each arm, and which versions are kept.

    With a configuration also how probable each arm is for somebody of whom nothing is known.
    """
    from streams.models_shown import show_model

    settings = settings_of(config=config, kafka=kafka, topic_prefix=topic_prefix)
    loaded = config_of(settings.config) if settings.config is not None else None
    raise typer.Exit(show_model(settings, loaded, model, as_json=as_json))


@models_app.command(
    epilog="Example: decisioning models pin cart-abandonment/subject 5120 --reason 'frozen for the sale'"
)
def pin(
    model: ModelArgument,
    version: VersionArgument,
    by: ByFlag = None,
    reason: ReasonFlag = "",
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Have all workers use one version, whatever is learned from now on.

    Learning goes on meanwhile. Who did it, when and why is in the decision log.
    """
    _use("pin", model, version, by, reason, kafka, topic_prefix)


@models_app.command(epilog="Example: decisioning models unpin cart-abandonment/subject")
def unpin(
    model: ModelArgument,
    by: ByFlag = None,
    reason: ReasonFlag = "",
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Have all workers follow the latest version again."""
    _use("unpin", model, None, by, reason, kafka, topic_prefix)


@models_app.command(epilog="Example: decisioning models rollback cart-abandonment/subject --to 5120")
def rollback(
    model: ModelArgument,
    to: Annotated[int | None, typer.Option("--to", metavar="VERSION", min=0, help="Which one; see --age.")] = None,
    age: Annotated[
        str, typer.Option("--age", metavar="DURATION", help="Without --to: the last one at least so old.")
    ] = "1h",
    by: ByFlag = None,
    reason: ReasonFlag = "",
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Have all workers use an earlier version.

    It stays so until unpin; learning goes on meanwhile.
    """
    from decisioning import durations

    try:
        age_ms = durations.parse(age)
    except ValueError as error:
        raise Failure(f"--age {age}: {error}", WRONG_USE) from None
    _use("rollback", model, to, by, reason, kafka, topic_prefix, age_ms)


@models_app.command(epilog="Example: decisioning models promote cart-abandonment/subject 5120 --config campaigns.yaml")
def promote(
    model: ModelArgument,
    version: VersionArgument,
    force: Annotated[bool, typer.Option("--force", help="Whatever the log says; needs --reason.")] = False,
    by: ByFlag = None,
    reason: ReasonFlag = "",
    config: ConfigFlag = None,
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Have all workers use a version if the log shows that it is better than what was done since.

    It stays so until unpin; learning goes on meanwhile. Exit 1 where the log does not show it.
    """
    from streams.judging import judged
    from streams.pinning import Wanted, use

    settings = settings_of(config=config, kafka=kafka, topic_prefix=topic_prefix)
    wanted = Wanted("promote", model, version, by or getpass.getuser(), reason)
    if force:
        if not reason.strip():
            raise Failure("--force: say in --reason why the log need not be asked", WRONG_USE)
        use(settings, wanted)
        return
    if settings.config is None:
        raise Failure(f"the rule of {model} is in its configuration; give --config FILE, or --force", WRONG_USE)
    loaded = config_of(settings.config)
    use(settings, wanted, lambda cluster, *snapshot: judged(cluster, loaded, *snapshot))


def _use(
    action: str,
    model: str,
    version: int | None,
    by: str | None,
    reason: str,
    kafka: str | None,
    topic_prefix: str | None,
    age_ms: int = 0,
) -> None:
    from streams.pinning import Wanted, use

    settings = settings_of(kafka=kafka, topic_prefix=topic_prefix)
    use(settings, Wanted(action, model, version, by or getpass.getuser(), reason, age_ms))
