"""Joins the rooms: what is asked next, what becomes of it, and when it is stored."""
