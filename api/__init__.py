"""The gateways: one folder for each kind of client, one application around them all."""
