"""When to use which: a measured map of the five arms, and an advisor that answers from it.

``grid.py`` says over what the map is measured, ``measuring.py`` measures it, ``measured_map.py`` is
what came out; ``map_table.py`` and ``map_picture.py`` show it. ``rules.py`` has the advisor's few
rules, ``advisor.py`` puts what they give into words: evidence, costs, what would change the answer.
"""
