/*
 * A page that listens to CouchDB as pages did before there was anything better: it asks for the last change, and then for
 * the next one, again and again. What is new is the address, and that it comes back after an error.
 */

const server = new URLSearchParams(location.search).get('server') ?? 'http://localhost:8080/couchdb'

function longpoll(since) {
  $.jsonp({
    url: `${server}/notifications/_changes?include_docs=true&feed=longpoll&since=${since}&callback=?`,
    success: data => {
      const [change] = data.results
      if (change) $('<li>').text(change.doc.msg).appendTo('#messages')
      longpoll(data.last_seq)
    },
    error: () => retry(() => longpoll(since)),
  })
}

function begin() {
  $.jsonp({
    url: `${server}/notifications?callback=?`,
    success: data => {
      $('#state').text(`Listening to ${data.db_name}, after change ${data.update_seq}.`)
      longpoll(data.update_seq)
    },
    error: () => retry(begin),
  })
}

function retry(again) {
  $('#state').text('There is no answer. Trying again…')
  setTimeout(again, 1000)
}

begin()
