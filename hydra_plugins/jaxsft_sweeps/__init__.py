"""Plug-ins of Hydra that jaxsft brings, found in the namespace package `hydra_plugins`."""
