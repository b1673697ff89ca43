"""Errors of answers in steps: how they compound, why there are any, and what more attempts buy."""
