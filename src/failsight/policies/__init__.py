"""Layer `policies`: adapters around policies, one folder each, imported only when used."""

POLICIES = {
    "tabletop-strong": "failsight.policies.vla.shipped:strong",
    "tabletop-weak": "failsight.policies.vla.shipped:weak",
}
"""Registered policies: name -> function that builds one; any other name is taken as a checkpoint folder."""
