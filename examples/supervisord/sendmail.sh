#!/bin/sh
# Takes a mail as sendmail does, and puts it into a file.
{
  cat
  echo
} >> mails.txt
