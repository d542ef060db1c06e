"""Options that several command lines of the tests have."""

import click

seed_option = click.option("--seed", type=int, default=0, help="The same one makes the same things happen.")
nodes_option = click.option("--nodes", is_flag=True, help="On several machines that share their stores alone.")
