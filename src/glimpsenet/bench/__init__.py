"""Measurements that compare: ways of learning to look, and speed."""
