"""What `import tensorflow_federated` finds in a process that a script under `fedbridge run` starts.

`multiprocessing` hands `sys.path` on to its children, and this folder is at its end.
"""

from fedbridge.tff import install

install()  # puts the namespace in the place of this module
