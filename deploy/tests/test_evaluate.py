"""Tests of deploy/aurora/evaluate.py on our own .aurora files and on broken ones. Run: python3 -m unittest discover deploy/tests"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

AURORA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'aurora')


def evaluate(path, *arguments, **environment):
  """Exit code, parsed answer (or None) and what it said about mistakes."""
  command = [sys.executable, os.path.join(AURORA, 'evaluate.py'), *arguments, path]
  run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                       env={**os.environ, **environment})
  return run.returncode, json.loads(run.stdout) if run.returncode == 0 else None, run.stderr


def ours(name, *arguments, **environment):
  """The only job of one of our files."""
  code, jobs, said = evaluate(os.path.join(AURORA, name), *arguments, **environment)
  assert code == 0, said
  assert len(jobs) == 1
  return jobs[0]


def process(job, number=0):
  return json.loads(job['executor_data'])['task']['processes'][number]


class ClusterJob(unittest.TestCase):

  def test_the_agent_is_the_one_process_and_a_daemon(self):
    job = ours('redis.aurora')
    data = json.loads(job['executor_data'])
    self.assertEqual([p['name'] for p in data['task']['processes']], ['agent'])
    self.assertTrue(process(job)['daemon'])
    self.assertEqual(process(job)['max_failures'], 0)
    self.assertEqual(process(job)['cmdline'].split()[0], 'exec')

  def test_the_scheduler_hands_out_both_ports(self):
    self.assertEqual(ours('redis.aurora')['resources']['ports'], ['health', 'redis'])

  def test_what_the_executor_binds_is_left_for_it(self):
    line = process(ours('redis.aurora'))['cmdline']
    for late in ('{{mesos.instance}}', '{{thermos.task_id}}', '{{thermos.ports[redis]}}', '{{thermos.ports[health]}}'):
      self.assertIn(late, line)
    self.assertNotIn('{{profile', line)

  def test_every_parameter_can_be_bound(self):
    job = ours('redis.aurora', '--bind', 'profile.role=cacher', '--bind', 'profile.environment=staging7',
               '--bind', 'profile.job=blue', '--bind', 'profile.instances=7', '--bind', 'profile.zookeeper=z:1',
               '--bind', 'profile.ram=2097152', '--bind', 'profile.hosts=limit:2', '--bind', 'profile.tier=preemptible')
    self.assertEqual(job['key'], {'role': 'cacher', 'environment': 'staging7', 'name': 'blue'})
    self.assertEqual(job['instances'], 7)
    self.assertEqual(job['resources']['ram_mb'], 2)
    self.assertEqual(job['constraints'], {'host': 'limit:2'})
    self.assertEqual(job['tier'], 'preemptible')
    self.assertIn('--zookeeper z:1 --cluster cacher/staging7/blue ', process(job)['cmdline'])

  def test_fetch_runs_before_the_agent_when_asked_for(self):
    job = ours('redis.aurora', FETCH='hdfs://nn/apps/agent.tar.gz')
    self.assertEqual([process(job, n)['name'] for n in (0, 1)], ['fetch', 'agent'])
    self.assertIn('hdfs dfs -get hdfs://nn/apps/agent.tar.gz', process(job)['cmdline'])
    self.assertEqual(json.loads(job['executor_data'])['task']['constraints'], [{'order': ['fetch', 'agent']}])

  def test_the_executor_gets_the_same_bytes_for_the_same_input(self):
    self.assertEqual(ours('redis.aurora')['executor_data'], ours('redis.aurora')['executor_data'])

  def test_more_instances_do_not_change_what_the_executor_gets(self):
    more = ours('redis.aurora', '--bind', 'profile.instances=9')
    self.assertEqual(ours('redis.aurora')['executor_data'], more['executor_data'])


class ControllerJob(unittest.TestCase):

  def test_it_controls_the_job_of_the_same_role_and_environment(self):
    job = ours('controller.aurora', '--bind', 'profile.redis_job=blue')
    self.assertIn('--cluster redis/prod/blue ', process(job)['cmdline'])
    self.assertGreater(job['instances'], 1)

  def test_a_static_port_is_asked_of_nobody_and_needs_dedicated_hosts(self):
    job = ours('controller.aurora', STATIC_PORT='9090')
    self.assertEqual(job['resources']['ports'], [])
    self.assertEqual(job['constraints']['dedicated'], 'redis/controllers')
    self.assertEqual(json.loads(job['executor_data'])['announce']['portmap'], {'health': '9090'})
    self.assertIn('--http-port 9090 ', process(job)['cmdline'])

  def test_without_one_the_scheduler_hands_it_out(self):
    job = ours('controller.aurora')
    self.assertEqual(job['resources']['ports'], ['health'])
    self.assertNotIn('dedicated', job['constraints'])


class Mistakes(unittest.TestCase):

  def refused(self, text, *arguments):
    with tempfile.NamedTemporaryFile('w', suffix='.aurora') as file:
      file.write(text)
      file.flush()
      code, _, said = evaluate(file.name, *arguments)
    self.assertEqual(code, 2, said)
    return said

  SERVICE = """
p = Process(name='p', cmdline='run {{thermos.ports[http]}}'%(process)s)
jobs = [Service(cluster='c', role='r', environment='%(environment)s', name='j',
  task=Task(processes=[p], resources=Resources(cpu=%(cpu)s, ram=1*GB, disk=1*GB))%(job)s)]
"""

  def service(self, **changes):
    values = {'process': '', 'environment': 'prod', 'cpu': 1, 'job': '', **changes}
    return self.SERVICE % values

  def test_all_at_once(self):
    said = self.refused(self.service(environment='production', cpu=0))
    self.assertIn("environment: 'production' is none of prod", said)
    self.assertIn('task.resources.cpu: 0', said)

  def test_an_unbound_name_is_named(self):
    said = self.refused(self.service(job=", contact='{{profile.who}}'"))
    self.assertIn('pass --bind profile.who=VALUE', said)

  def test_static_ports_without_dedicated_hosts(self):
    said = self.refused(self.service(job=", announce=Announcer(portmap={'http': '80'})"))
    self.assertIn('dedicated', said)

  def test_a_watch_too_short_to_see_a_failure(self):
    said = self.refused(self.service(job=', update_config=UpdateConfig(watch_secs=5)'))
    self.assertIn('watch_secs', said)

  def test_a_number_that_is_none(self):
    said = self.refused(self.service(job=", instances='many'"))
    self.assertIn('many', said)

  def test_no_jobs(self):
    self.assertIn('defines no jobs', self.refused('x = 1\n'))

  def test_broken_python(self):
    self.assertIn('InvalidConfigError', self.refused('jobs = [\n'))

  def test_no_such_file(self):
    code, _, said = evaluate('/nonexistent/x.aurora')
    self.assertEqual(code, 2)
    self.assertIn('/nonexistent/x.aurora', said)

  def test_an_unknown_field(self):
    said = self.refused(self.service(job=', instanses=3'))
    self.assertIn('instanses', said)


if __name__ == '__main__':
  unittest.main()
