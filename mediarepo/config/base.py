"""What every configuration section has in common: misspelt keys are fatal, values never change."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
