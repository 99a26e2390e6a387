"""The proof of exact resume: kill a training many times and compare every byte."""
