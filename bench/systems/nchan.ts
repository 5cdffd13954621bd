import { writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { accepts, childrenOf, freePort, start } from '../children.js'
import { missingOf, type System } from './system.js'

const module = '/usr/lib/nginx/modules/ngx_nchan_module.so'

const channel = 'nchan_channel_id bench; nchan_subscriber_first_message newest;'

/** Debian's nginx with Nchan; messages are in memory only. */
function nchanWith(name: string, workers: number): System {
  return {
    name,
    speaks: 'relay',
    hasTls: false,
    push: { publish: '/publish', stream: '/stream', poll: '/poll', cursor: 'validators' },
    missing: () => missingOf('nginx', module),

    async start({ directory }) {
      const port = await freePort()
      const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      const lines = [
        `load_module ${module};`,
        // As root it would become nobody, who may not write here.
        `user ${userInfo().username};`,
        'daemon off;',
        `worker_processes ${workers};`,
        'worker_rlimit_nofile 16384;',
        `pid ${join(directory, 'nginx.pid')};`,
        'error_log stderr error;',
        'events { worker_connections 16384; }',
        'http {',
        '  access_log off;',
        '  keepalive_requests 1000000000;',
        '  keepalive_time 24h;',
        ...kinds.map(kind => `  ${kind}_temp_path ${join(directory, kind)};`),
        '  nchan_shared_memory_size 256m;',
        '  nchan_message_buffer_length 1000;',
        '  nchan_message_timeout 1h;',
        '  server {',
        `    listen 127.0.0.1:${port} backlog=4096;`,
        '    location = /publish { nchan_publisher; nchan_channel_id bench; }',
        `    location = /stream { nchan_subscriber eventsource; ${channel} }`,
        // Several messages in one answer, as mqway has it.
        `    location = /poll { nchan_subscriber longpoll; nchan_longpoll_multipart_response raw; ${channel} }`,
        '  }',
        '}',
      ]
      const file = join(directory, 'nginx.conf')
      writeFileSync(file, `${lines.join('\n')}\n`)
      const child = start('nginx', ['-p', directory, '-c', file])
      await accepts(port, child)
      // The port is open before there are workers.
      while (childrenOf(child.pid).length < workers) await delay(5)
      return { port, pids: [child.pid, ...childrenOf(child.pid)], stop: () => child.stop() }
    },
  }
}

export const nchan = nchanWith('nchan', 1)
export const nchanWorkers = nchanWith('nchan (2 workers)', 2)
