"""Tickets: sparse subnetworks on their way to other models, at random as a control, and several in one."""

from tfprune.tickets.ensembles import ensemble
from tfprune.tickets.shuffling import shuffled
from tfprune.tickets.transfers import Transfer, to_new_head, to_other_depth

__all__ = ["Transfer", "ensemble", "shuffled", "to_new_head", "to_other_depth"]
