"""What `decisioning check` says: every finding about a configuration file, errors and warnings."""

from __future__ import annotations

from decisioning import config
from decisioning.findings import Finding


def check(text: str | bytes, name: str = "config") -> list[Finding]:
    """Examine a configuration file.

    Parameters
    ----------
    text
        YAML or JSON.
    name
        The file as the user named it.

    Returns
    -------
    list of Finding
        In the order of the lines; empty for a file without anything wrong or odd. `str(finding)` is one line.
    """
    return config.read(text, name)[1]


def is_usable(findings: list[Finding]) -> bool:
    """Whether no finding is an error."""
    return all(finding.severity == "warning" for finding in findings)
