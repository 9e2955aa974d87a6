"""Items recommended to users, or ratings predicted, by what all of them did."""
