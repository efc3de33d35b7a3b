"""Notifications: the customer is told what becomes of the order, by way of a port that can be anything."""
