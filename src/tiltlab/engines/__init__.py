"""Engines that draw responses beside the model that trains (`tiltlab.models.engine`). Each knows one program's API."""
