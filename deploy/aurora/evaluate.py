#!/usr/bin/env python3
"""Evaluates a .aurora file with pystachio and prints, as JSON, the jobs that the Aurora client would submit.

  evaluate.py [--bind NAME=VALUE]... FILE

The answer is a list with one object per job:

  {"key": {"role", "environment", "name"}, "cluster", "instances", "service", "tier", "priority", "max_task_failures",
   "production", "contact", "resources": {"cpus", "ram_mb", "disk_mb", "ports": [...]},
   "constraints": {"host": "limit:1"}, "partition_policy": {...}, "executor_name", "executor_data"}

`executor_data` is the text that goes into TaskConfig.executorConfig.data, byte for byte the same for the same input.
What the client would refuse is refused here too, all of it at once, with exit code 2.

Needs pystachio (0.8.10 is what it is tested with). `--bind` works as in the client: it wins over what the file itself binds.
"""

import argparse
import json
import os
import re
import sys

from pystachio import Empty, Ref
from pystachio.base import Object
from pystachio.config import Config

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import schema  # noqa: E402 (needs the line above)

EXECUTOR_NAME = 'AuroraExecutor'
IDENTIFIER = re.compile(r'^[\w\-.]+$')
ENVIRONMENT = re.compile(r'^(prod|devel|test|staging\d*)$')
MB = 1024 * 1024
# Bound by the executor when the task starts; everything else has to be bound at submission.
LATE = ('mesos.instance', 'mesos.hostname', 'thermos.task_id', 'thermos.user')
# Kept out of the executor's data by the client, so that changing them restarts nothing.
NOT_FOR_EXECUTOR = ('update_config', 'instances')


class Invalid(Exception):
  """Mistakes in a job, each one line."""

  def __init__(self, mistakes):
    super().__init__('\n'.join(mistakes))
    self.mistakes = mistakes


def load(path):
  """The `jobs` of the file; the schema's names are there without an import, as in the client."""
  names = Config.DEFAULT_SCHEMA + '\nfrom schema import *'
  try:
    environment = Config(path, schema=names).environment
  except Exception as error:  # the file is a program: whatever it raises is its author's mistake
    raise Invalid(['%s: %s' % (type(error).__name__, error)]) from error
  jobs = environment.get('jobs', [])
  if not jobs:
    raise Invalid(['it defines no jobs'])
  return jobs


def bind(job, bindings):
  """The job with the command line's bindings and the client's standard ones."""
  bound = job.bind(*[{Ref.from_address(name): value} for name, value in bindings])
  return bound.bind({
    Ref.from_address('mesos.role'): '{{role}}',
    Ref.from_address('mesos.cluster'): '{{cluster}}',
    Ref.from_address('thermos.user'): '{{role}}',
  })


def static_ports(portmap):
  """Names of the portmap that resolve to a number (no scheduler involved), following aliases."""
  found = {}
  for name in portmap:
    target, seen = name, set()
    while target in portmap and target not in seen:
      seen.add(target)
      target = portmap[target]
    if target.isdigit():
      found[name] = int(target)
  return found


def ports(job, refs):
  """Names of the ports that the scheduler has to allocate."""
  portmap = dict(job.announce().portmap().get()) if job.has_announce() else {}
  static = static_ports(portmap)
  scope = Ref.from_address('thermos.ports')
  wanted = set()
  for ref in refs:
    inner = Ref.subscope(scope, ref)
    if inner:
      name = inner.action().value
      wanted.add(portmap.get(name, name))
  for target in portmap.values():
    wanted.add(portmap.get(target, target))
  return sorted(name for name in wanted if name not in static and not name.isdigit())


def mistakes(job, refs):
  """What the client or the scheduler would refuse, in words."""
  found = []
  for ref in refs:
    address = ref.address()
    if address not in LATE and not address.startswith('thermos.ports['):
      found.append('{{%s}} is bound to nothing: pass --bind %s=VALUE' % (address, address))
  check = job.bind(mesos={'instance': 0, 'hostname': 'localhost'}).check()
  if not check.ok():
    return found + [check.message()]
  for field in ('role', 'environment', 'name', 'cluster'):
    value = str(getattr(job, field)())
    if not IDENTIFIER.match(value):
      found.append('%s: %r is not made of letters, digits, "_", "-" and "."' % (field, value))
  if not ENVIRONMENT.match(str(job.environment())):
    found.append('environment: %r is none of prod, devel, test, staging<number>' % str(job.environment()))
  found += announce_mistakes(job) + resource_mistakes(job) + process_mistakes(job) + timing_mistakes(job)
  return found


def announce_mistakes(job):
  if not job.has_announce():
    return []
  portmap = dict(job.announce().portmap().get())
  if static_ports(portmap) and 'dedicated' not in job.constraints().get():
    return ['announce: static ports (%s) need a "dedicated" constraint' % ', '.join(sorted(static_ports(portmap)))]
  return []


def resource_mistakes(job):
  if not job.task().has_resources():
    return ['task: no resources']
  resources = job.task().resources()
  wanted = {'cpu': resources.cpu().get(), 'ram': resources.ram().get(), 'disk': resources.disk().get()}
  found = ['task.resources.%s: %s is not above 0' % (name, value) for name, value in wanted.items() if value <= 0]
  found += ['task.resources.%s: %d is below 1 MB (bytes are meant)' % (name, wanted[name])
            for name in ('ram', 'disk') if 0 < wanted[name] < MB]
  return found


def process_mistakes(job):
  processes = job.task().processes()
  if processes is Empty or not processes.get():
    return ['task: no processes']
  daemons = {str(p.name()) for p in processes if p.daemon().get()}
  names = [str(p.name()) for p in processes]
  found = ['task: two processes are named %r' % name for name in sorted(set(names)) if names.count(name) > 1]
  for constraint in job.task().constraints():
    chain = [str(name) for name in constraint.order()] if constraint.has_order() else []
    found += ['task: order() names %r, which is no process' % name for name in chain if name not in names]
    found += ['task: nothing can run after the daemon %r' % name for name in chain[:-1] if name in daemons]
  return found


def timing_mistakes(job):
  """A watch that ends before the health check can fail would call every update a success."""
  health, update = job.health_check_config(), job.update_config()
  needed = health.initial_interval_secs().get() + health.max_consecutive_failures().get() * health.interval_secs().get()
  watch = update.watch_secs().get()
  if 0 < watch <= needed:
    return ['update_config.watch_secs: %d must be 0 or above %d, the time a health check may take to fail' % (watch, needed)]
  return []


def submission(job):
  """The job as the client would submit it. Raises Invalid."""
  try:
    interpolated, refs = job.interpolate()
  except Object.CoercionError as error:
    raise Invalid([str(error)]) from error
  found = mistakes(job, refs)
  if found:
    raise Invalid(found)
  task = interpolated.task()
  resources = task.resources()
  data = interpolated(**{field: Empty for field in NOT_FOR_EXECUTOR})
  return {
    'key': {field: str(getattr(interpolated, field)()) for field in ('role', 'environment', 'name')},
    'cluster': str(interpolated.cluster()),
    'instances': interpolated.instances().get(),
    'service': bool(interpolated.service().get()),
    'tier': str(interpolated.tier()) if interpolated.has_tier() else None,
    'priority': interpolated.priority().get(),
    'max_task_failures': interpolated.max_task_failures().get(),
    'production': bool(interpolated.production().get()),
    'contact': str(interpolated.contact()) if interpolated.has_contact() else None,
    'resources': {
      'cpus': resources.cpu().get(),
      'ram_mb': resources.ram().get() // MB,
      'disk_mb': resources.disk().get() // MB,
      'ports': ports(interpolated, refs),
    },
    'constraints': dict(interpolated.constraints().get()),
    'partition_policy': dict(interpolated.partition_policy().get()) if interpolated.has_partition_policy() else None,
    'executor_name': EXECUTOR_NAME,
    'executor_data': data.json_dumps(),
  }


def binding(text):
  name, equals, value = text.partition('=')
  if not name or not equals:
    raise argparse.ArgumentTypeError('%r is not NAME=VALUE' % text)
  return name, value


def main(arguments=None):
  parser = argparse.ArgumentParser(description='Print the jobs of a .aurora file as the Aurora client would submit them.')
  parser.add_argument('--bind', type=binding, action='append', default=[], metavar='NAME=VALUE',
                      help='bind {{NAME}}; wins over what the file binds; may be repeated')
  parser.add_argument('file')
  options = parser.parse_args(arguments)
  try:
    jobs = [submission(bind(job, options.bind)) for job in load(options.file)]
  except Invalid as invalid:
    for mistake in invalid.mistakes:
      print('%s: %s' % (options.file, mistake), file=sys.stderr)
    return 2
  json.dump(jobs, sys.stdout, indent=2)
  print()
  return 0


if __name__ == '__main__':
  sys.exit(main())
