"""Experiment trackers: the contract, the payload rules, and one file per tracker."""
