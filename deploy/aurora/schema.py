"""The vocabulary of .aurora files, as far as a long-running service uses it, for pystachio.

The Aurora client brings its own schema, which no package index carries. This one declares the same names, types and
defaults, so that evaluate.py can read our .aurora files without the client. Field by field it follows Aurora's
configuration reference; what our files do not use (cron, containers, hooks) is left out, so that a typo or a
forgotten feature fails here rather than on the cluster.
"""

from pystachio import Boolean, Choice, Default, Enum, Float, Integer, List, Map, Required, String, Struct

KB = 1024
MB = 1024 * KB
GB = 1024 * MB


class MesosContext(Struct):
  """What the executor binds as {{mesos.*}}."""
  instance = Required(Integer)
  hostname = Required(String)


class Logger(Struct):
  destination = Default(Enum('LoggerDestination', ('file', 'console', 'both', 'none')), 'file')
  mode = Default(Enum('LoggerMode', ('standard', 'rotate')), 'standard')


class Process(Struct):
  """One command line in a task, run by bash in the sandbox."""
  name = Required(String)
  cmdline = Required(String)
  max_failures = Default(Integer, 1)
  daemon = Default(Boolean, False)
  ephemeral = Default(Boolean, False)
  final = Default(Boolean, False)
  min_duration = Default(Integer, 5)
  logger = Default(Logger, Logger())


class Resources(Struct):
  """What one instance may use; ram and disk in bytes."""
  cpu = Required(Float)
  ram = Required(Integer)
  disk = Required(Integer)
  gpu = Default(Integer, 0)


class Constraint(Struct):
  """An order between processes."""
  order = List(String)


class Task(Struct):
  name = Default(String, '{{processes[0].name}}')
  processes = List(Process)
  constraints = Default(List(Constraint), [])
  resources = Resources
  max_failures = Default(Integer, 1)
  max_concurrency = Default(Integer, 0)
  finalization_wait = Default(Integer, 30)


class HttpHealthChecker(Struct):
  endpoint = Default(String, '/health')
  expected_response = Default(String, 'ok')
  expected_response_code = Default(Integer, 0)


class ShellHealthChecker(Struct):
  shell_command = String


class HealthCheckerConfig(Struct):
  http = HttpHealthChecker
  shell = ShellHealthChecker


class HealthCheckConfig(Struct):
  health_checker = Default(HealthCheckerConfig, HealthCheckerConfig(http=HttpHealthChecker()))
  initial_interval_secs = Default(Float, 15.0)
  interval_secs = Default(Float, 10.0)
  max_consecutive_failures = Default(Integer, 0)
  min_consecutive_successes = Default(Integer, 1)
  timeout_secs = Default(Float, 1.0)


class HttpLifecycleConfig(Struct):
  port = Default(String, 'health')
  graceful_shutdown_endpoint = Default(String, '/quitquitquit')
  shutdown_endpoint = Default(String, '/abortabortabort')
  graceful_shutdown_wait_secs = Default(Integer, 5)
  shutdown_wait_secs = Default(Integer, 5)


class LifecycleConfig(Struct):
  http = HttpLifecycleConfig


class Announcer(Struct):
  """Whom the executor announces in ZooKeeper. Without it the instances are in no serverset."""
  primary_port = Default(String, 'http')
  portmap = Default(Map(String, String), {'aurora': '{{primary_port}}'})
  zk_path = String


class UpdateConfig(Struct):
  batch_size = Default(Integer, 1)
  watch_secs = Default(Integer, 45)
  max_per_shard_failures = Default(Integer, 0)
  max_total_failures = Default(Integer, 0)
  rollback_on_failure = Default(Boolean, True)
  wait_for_batch_completion = Default(Boolean, False)
  pulse_interval_secs = Integer
  sla_aware = Default(Boolean, False)


class CoordinatorSlaPolicy(Struct):
  coordinator_url = Required(String)
  status_key = Default(String, 'drain')


class CountSlaPolicy(Struct):
  count = Required(Integer)
  duration_secs = Required(Integer)


class PercentageSlaPolicy(Struct):
  percentage = Required(Float)
  duration_secs = Required(Integer)


class PartitionPolicy(Struct):
  reschedule = Default(Boolean, True)
  delay_secs = Default(Integer, 0)


class Metadata(Struct):
  key = Required(String)
  value = Required(String)


class MesosJob(Struct):
  name = Default(String, '{{task.name}}')
  role = Required(String)
  contact = String
  cluster = Required(String)
  environment = Required(String)
  instances = Default(Integer, 1)
  task = Required(Task)
  announce = Announcer
  tier = String
  update_config = Default(UpdateConfig, UpdateConfig())
  constraints = Default(Map(String, String), {})
  metadata = Default(List(Metadata), [])
  service = Default(Boolean, False)
  max_task_failures = Default(Integer, 1)
  production = Default(Boolean, False)
  priority = Default(Integer, 0)
  health_check_config = Default(HealthCheckConfig, HealthCheckConfig())
  lifecycle = Default(LifecycleConfig, LifecycleConfig(http=HttpLifecycleConfig()))
  partition_policy = PartitionPolicy
  sla_policy = Choice([CoordinatorSlaPolicy, CountSlaPolicy, PercentageSlaPolicy])
  cron_collision_policy = Default(String, 'KILL_EXISTING')
  enable_hooks = Default(Boolean, False)


Job = MesosJob
Service = Job(service=True)
DisableLifecycle = LifecycleConfig()


def order(*processes):
  """The constraint that these processes run one after the other."""
  return [Constraint(order=[process.name() for process in processes])]
