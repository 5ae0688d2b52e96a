"""Serves: HTTP. Validates, writes down what is asked, answers with what is; never acts."""
