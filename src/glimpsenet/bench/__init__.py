"""Benchmarks: policy-learning methods, and speed."""
