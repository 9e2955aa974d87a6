"""Games for two players without chance or hidden information: rules, search, players, ratings."""
