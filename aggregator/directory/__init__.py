"""The operator's directory of accounts: interchangeable sources, asked at sending time."""
