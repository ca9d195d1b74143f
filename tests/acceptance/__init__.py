"""The whole product on real engines, as its users meet it."""
