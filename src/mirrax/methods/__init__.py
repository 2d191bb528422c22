"""A gallery of published methods, each one a short composition of the packages below."""

from ._meta_md import meta_md as meta_md
